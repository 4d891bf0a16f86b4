#include "projector/model_prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/files/memory_stream.h"

static const char *default_template(const char *preset) {
    static const char *const table[][2] = {
        {"ask", "{question}"},
        {"gqa", "{question}\nAnswer the question using a single word or phrase."},
        {"translate", "Translate the sentences into {to}.  {from}: {text} {to}: "},
        {"summarize", "Write a short summary of the text.  Text: {text} Summary: "},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (!strcmp(preset, table[i][0])) return table[i][1];
    return NULL;
}

static const char *field_value(const char *name, size_t size, const char *text, const char *from,
                               const char *to) {
    const struct {
        const char *name, *value;
    } fields[] = {{"question", text}, {"text", text}, {"from", from}, {"to", to}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strlen(fields[i].name) == size && !strncmp(name, fields[i].name, size))
            return fields[i].value ? fields[i].value : "";
    return NULL;
}

int model_prompt(const json_t *settings, const char *preset, const char *text, const char *from,
                 const char *to, char **prompt, Error *err) {
    *prompt = NULL;
    const char *prompt_template =
        json_string_value(json_object_get(json_object_get(settings, "prompts"), preset));
    if (!prompt_template) prompt_template = default_template(preset);
    if (!prompt_template) return error_set(err, "no prompt template for \"%s\" is known", preset);
    size_t size = 0;
    FILE *out = memory_stream_open(prompt, &size);
    if (!out) return error_set(err, "out of memory for a prompt");
    int status = 0;
    for (const char *p = prompt_template; *p && status == 0;) {
        const char *end = *p == '{' ? strchr(p, '}') : NULL;
        if (!end) {
            fputc(*p++, out);
            continue;
        }
        const char *value = field_value(p + 1, (size_t)(end - p - 1), text, from, to);
        if (value)
            fputs(value, out);
        else
            status = error_set(err, "the prompt template of \"%s\" has an unknown field %.*s",
                               preset, (int)(end - p + 1), p);
        p = end + 1;
    }
    if (fclose(out) && status == 0) status = error_set(err, "out of memory for a prompt");
    if (status) {
        free(*prompt);
        *prompt = NULL;
    }
    return status;
}

/* Whether all {names} of a template are known. */
static int check_fields(const char *preset, const char *prompt_template, Error *err) {
    for (const char *p = prompt_template; (p = strchr(p, '{'));) {
        const char *end = strchr(p, '}');
        if (!end) return 0;
        if (!field_value(p + 1, (size_t)(end - p - 1), NULL, NULL, NULL))
            return error_set(err, "the prompt template of \"%s\" has an unknown field %.*s", preset,
                             (int)(end - p + 1), p);
        p = end + 1;
    }
    return 0;
}

int model_check_prompts(const json_t *settings, const char *path, Error *err) {
    const json_t *prompts = json_object_get(settings, "prompts");
    if (!prompts || json_is_null(prompts)) return 0;
    if (!json_is_object(prompts))
        return error_set(err, "%s: \"prompts\" must be an object of texts", path);
    const char *preset;
    json_t *prompt_template;
    json_object_foreach((json_t *)prompts, preset, prompt_template) {
        if (!default_template(preset))
            return error_set(err,
                             "%s: \"prompts\" has \"%.100s\", expected ask, gqa, translate or "
                             "summarize",
                             path, preset);
        if (!json_is_string(prompt_template))
            return error_set(err, "%s: the prompt \"%s\" must be a text", path, preset);
        if (check_fields(preset, json_string_value(prompt_template), err))
            return error_context(err, "%s", path);
    }
    return 0;
}
