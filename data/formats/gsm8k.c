/* gsm8k.c - GSM8K's {"question", "answer"}. The answer's calculator marks, <<48/2=24>>, are removed, and
 * its last line, "#### 24", becomes "The answer is 24.", as in the demonstrations of the authors' files. */
#include <stdlib.h>
#include <string.h>

#include "data/files/path.h"
#include "data/formats/formats.h"

bool gsm8k_known(const json_t *object) {
    return json_is_string(json_object_get(object, "question")) &&
           json_is_string(json_object_get(object, "answer")) && !json_object_get(object, "image");
}

/* Removes "<<...>>", in place. */
static void remove_marks(char *text) {
    char *to = text;
    for (const char *from = text; *from;) {
        const char *end = !strncmp(from, "<<", 2) ? strstr(from, ">>") : NULL;
        if (end)
            from = end + 2;
        else
            *to++ = *from++;
    }
    *to = 0;
}

/* The answer's steps in *answer, without what follows, and its number; NULL: it has none. */
static const char *split_number(char *answer) {
    char *mark = answer, *last = NULL;
    while ((mark = strstr(mark, "####")) != NULL) last = mark, mark += 4;
    if (!last) return NULL;
    char *number = last + 4 + strspn(last + 4, " ");
    number[strcspn(number, " \t\r\n")] = 0;
    while (last > answer && strchr(" \t\r\n", last[-1])) last--;
    *last = 0;
    return number[0] && !number[strspn(number, "+-0123456789.,")] ? number : NULL;
}

int gsm8k_finish(char **finished, const char *answer, bool marks) {
    char *steps = strdup(answer);
    *finished = NULL;
    if (!steps) return -1;
    if (!marks) remove_marks(steps);
    const char *number = split_number(steps);
    if (number)
        *finished = path_format(NULL, "%s%sThe answer is %s.", steps, steps[0] ? "\n" : "", number);
    free(steps);
    return !number ? 1 : *finished ? 0 : -1;
}

json_t *gsm8k_convert(json_t *object, const Prompting *prompting, ObjectFault *fault) {
    static const char *const without[] = {"question", "answer", NULL};
    const char *question = object_text(object, "question", fault);
    const char *text = question ? object_text(object, "answer", fault) : NULL;
    if (!text) return NULL;
    char *target, *stem = path_format(NULL, "Question:  %s Step-by-Step Answer: ", question);
    const int status = gsm8k_finish(&target, text, false);
    json_t *pair = NULL;
    if (status > 0)
        object_fault(fault, "no number", "its \"answer\" does not end in a line \"#### number\"");
    else if (stem && target)
        pair = prompt_object(
            object, without, prompting,
            &(Sample){.instruction = "", .stem = stem, .answer = target, .between = ""}, fault);
    else
        fault->memory = true;
    free(stem), free(target);
    return pair;
}
