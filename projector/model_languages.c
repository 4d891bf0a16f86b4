#include "projector/model_languages.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kernels/nearest_word.h"

typedef struct Language {
    const char *code, *name;
} Language;

/* Those that XLM-R was trained with (without its romanised and second-script variants), by the
 * names that its instruction sets use. */
static const Language languages[] = {
    {"af", "Afrikaans"},  {"am", "Amharic"},     {"ar", "Arabic"},
    {"as", "Assamese"},   {"az", "Azerbaijani"}, {"be", "Belarusian"},
    {"bg", "Bulgarian"},  {"bn", "Bengali"},     {"br", "Breton"},
    {"bs", "Bosnian"},    {"ca", "Catalan"},     {"cs", "Czech"},
    {"cy", "Welsh"},      {"da", "Danish"},      {"de", "German"},
    {"el", "Greek"},      {"en", "English"},     {"eo", "Esperanto"},
    {"es", "Spanish"},    {"et", "Estonian"},    {"eu", "Basque"},
    {"fa", "Persian"},    {"fi", "Finnish"},     {"fr", "French"},
    {"fy", "Frisian"},    {"ga", "Irish"},       {"gd", "Scottish Gaelic"},
    {"gl", "Galician"},   {"gu", "Gujarati"},    {"ha", "Hausa"},
    {"he", "Hebrew"},     {"hi", "Hindi"},       {"hr", "Croatian"},
    {"hu", "Hungarian"},  {"hy", "Armenian"},    {"id", "Indonesian"},
    {"is", "Icelandic"},  {"it", "Italian"},     {"ja", "Japanese"},
    {"jv", "Javanese"},   {"ka", "Georgian"},    {"kk", "Kazakh"},
    {"km", "Khmer"},      {"kn", "Kannada"},     {"ko", "Korean"},
    {"ku", "Kurdish"},    {"ky", "Kyrgyz"},      {"la", "Latin"},
    {"lo", "Lao"},        {"lt", "Lithuanian"},  {"lv", "Latvian"},
    {"mg", "Malagasy"},   {"mk", "Macedonian"},  {"ml", "Malayalam"},
    {"mn", "Mongolian"},  {"mr", "Marathi"},     {"ms", "Malay"},
    {"my", "Burmese"},    {"ne", "Nepali"},      {"nl", "Dutch"},
    {"no", "Norwegian"},  {"om", "Oromo"},       {"or", "Oriya"},
    {"pa", "Punjabi"},    {"pl", "Polish"},      {"ps", "Pashto"},
    {"pt", "Portuguese"}, {"ro", "Romanian"},    {"ru", "Russian"},
    {"sa", "Sanskrit"},   {"sd", "Sindhi"},      {"si", "Sinhala"},
    {"sk", "Slovak"},     {"sl", "Slovenian"},   {"so", "Somali"},
    {"sq", "Albanian"},   {"sr", "Serbian"},     {"su", "Sundanese"},
    {"sv", "Swedish"},    {"sw", "Swahili"},     {"ta", "Tamil"},
    {"te", "Telugu"},     {"th", "Thai"},        {"tl", "Filipino"},
    {"tr", "Turkish"},    {"ug", "Uyghur"},      {"uk", "Ukrainian"},
    {"ur", "Urdu"},       {"uz", "Uzbek"},       {"vi", "Vietnamese"},
    {"xh", "Xhosa"},      {"yi", "Yiddish"},     {"zh", "Chinese"},
};
enum { LANGUAGES = sizeof languages / sizeof *languages };

static const Language *find_language(const char *word, size_t length) {
    for (int i = 0; i < LANGUAGES; i++) {
        const Language *l = &languages[i];
        if ((strlen(l->code) == length && !strncasecmp(word, l->code, length)) ||
            (strlen(l->name) == length && !strncasecmp(word, l->name, length)))
            return l;
    }
    return NULL;
}

const char *language_name(const char *word) {
    const Language *l = find_language(word, strlen(word));
    return l ? l->name : word;
}

static int unknown_language(const char *word, Error *err) {
    const char *names[LANGUAGES + 1] = {NULL};
    for (int i = 0; i < LANGUAGES; i++) names[i] = languages[i].name;
    const char *near = strlen(word) > 3 ? nearest_word(word, names) : NULL;
    return error_set(err,
                     "unknown language \"%.100s\"%s%s%s; expected a code such as de, or a name",
                     word, near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
}

/* "de-en": both languages; false if it is no such pair. */
static bool read_pair(const char *text, const Language **from, const Language **to) {
    const char *dash = strchr(text, '-');
    if (!dash) return false;
    *from = find_language(text, (size_t)(dash - text));
    *to = find_language(dash + 1, strlen(dash + 1));
    return *from && *to;
}

int model_check_languages(const json_t *settings, const char *path, Error *err) {
    const json_t *pairs = json_object_get(settings, "languages"), *pair;
    const Language *from, *to;
    size_t i;
    if (!pairs || json_is_null(pairs)) return 0;
    if (!json_is_array(pairs))
        return error_set(err, "%s: \"languages\" must be a list of pairs such as \"de-en\"", path);
    json_array_foreach(
        pairs, i, pair) if (!json_is_string(pair) ||
                            !read_pair(json_string_value(pair), &from,
                                       &to)) return error_set(err,
                                                              "%s: \"languages\" must be a list of "
                                                              "pairs such as \"de-en\"; number "
                                                              "%zu, \"%.50s\", is none",
                                                              path, i + 1,
                                                              json_is_string(pair)
                                                                  ? json_string_value(pair)
                                                                  : "");
    return 0;
}

void model_pairs_text(char *out, size_t size, const json_t *settings) {
    const json_t *pairs = json_object_get(settings, "languages"), *pair;
    size_t i, used = 0;
    out[0] = 0;
    json_array_foreach(pairs, i, pair) {
        const Language *from = NULL, *to = NULL;
        if (!read_pair(json_string_value(pair), &from, &to) || used >= size) continue;
        int n =
            snprintf(out + used, size - used, "%s%s to %s", used ? ", " : "", from->name, to->name);
        if (n > 0) used += (size_t)n;
    }
}

int model_check_pair(const json_t *settings, const char *from, const char *to, const char *path,
                     Error *err) {
    const Language *source = find_language(from, strlen(from)),
                   *target = find_language(to, strlen(to));
    if (!source) return unknown_language(from, err);
    if (!target) return unknown_language(to, err);
    const json_t *pairs = json_object_get(settings, "languages"), *pair;
    if (!json_is_array(pairs)) return 0;
    size_t i;
    json_array_foreach(pairs, i, pair) {
        const Language *a = NULL, *b = NULL;
        if (read_pair(json_string_value(pair), &a, &b) && a == source && b == target) return 0;
    }
    char known[400];
    model_pairs_text(known, sizeof known, settings);
    return error_set(err, "%s: this model does not translate %s to %s, but %s", path, source->name,
                     target->name, known[0] ? known : "nothing");
}
