#include "apps/reproduce/data.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apps/reproduce/draft.h"
#include "apps/reproduce/number_words.h"

enum { SPLITS = 3, TRAIN = 0, VALID = 1, TEST = 2 };
static const char *const split_names[SPLITS] = {"train", "valid", "test"};
/* How many records of each kind. */
static const int split_sizes[SPLITS] = {2500, 60, 200};
enum { SMALL_TRAIN = 1500, SMALL_TEST = 100 };

/* ---- Words. ---- */

static const char *const names[] = {"Anna", "Paul", "Mia",  "Tom",  "Lena",
                                    "Max",  "Nina", "Karl", "Rosa", "Emil"};
static const char *const cities[] = {"Bonn",   "Rome", "Paris",  "Vienna", "Oslo",
                                     "Madrid", "Bern", "Prague", "Dublin", "Athens"};
static const char *const days[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                   "Friday", "Saturday", "Sunday"};
static const char *const fruits[] = {"apple", "pear", "plum", "lemon", "melon", "cherry"};
static const char *const animals[] = {"dog", "cat", "horse", "cow", "sheep", "goat"};
static const char *const things[] = {"apples", "pears", "plums", "books", "stamps", "coins"};
static const char *const dinge[] = {"Nüsse", "Birnen", "Pflaumen", "Bücher", "Marken", "Münzen"};
static const char *const makers[] = {"mayor", "king", "president", "minister", "teacher"};
static const char *const built[] = {"bridge",  "school", "museum", "station",
                                    "library", "park",   "market", "theater"};

/* ---- Numbers. ---- */

enum { NUMBERS = 10000 };

/* Test and validation take every tenth number each; training any of the others. */
static int number_of(int split, int record) {
    Draw d = draw_for(SET_NUMBERS + 10 * split, record);
    const int n = draw(&d, NUMBERS / 10) * 10;
    if (split == TEST) return n + 3;
    if (split == VALID) return n + 7;
    static const int others[] = {0, 1, 2, 4, 5, 6, 8, 9};
    return n + others[draw(&d, COUNT(others))];
}

/* The training pairs with a tab between them, for demonstrations, and as finished prompts, for a
 * mixture: those that `eval text` builds in the tables. */
static int write_number_pairs(const char *folder, Error *err) {
    Draft pairs, prompts;
    char german[NUMBER_WORDS_SIZE] = "", english[NUMBER_WORDS_SIZE] = "";
    TRY(draft_begin(&pairs, err));
    if (draft_begin(&prompts, err)) return fclose(pairs.out), free(pairs.text), -1;
    for (int i = 0; i < split_sizes[TRAIN]; i++) {
        number_german(german, number_of(TRAIN, i)), number_english(english, number_of(TRAIN, i));
        fprintf(pairs.out, "%s\t%s\n", german, english);
        fprintf(prompts.out,
                "{\"inputs\": \"Translate the sentences into English. German: %s English: \", "
                "\"targets\": \"%s\"}\n",
                german, english);
    }
    int status = draft_end(&pairs, folder, "numbers-train.tsv", err);
    return draft_end(&prompts, folder, "instructions.jsonl", err) | status;
}

static int write_numbers(const char *folder, int split, Error *err) {
    for (int german = 0; german < 2; german++) {
        Draft draft;
        char name[64], words[NUMBER_WORDS_SIZE] = "";
        TRY(draft_begin(&draft, err));
        for (int i = 0; i < split_sizes[split]; i++) {
            const int number = number_of(split, i);
            if (german)
                number_german(words, number);
            else
                number_english(words, number);
            fprintf(draft.out, "%s\n", words);
        }
        snprintf(name, sizeof name, "numbers-%s.%s", split_names[split], german ? "de" : "en");
        TRY(draft_end(&draft, folder, name, err));
    }
    return 0;
}

/* ---- News. ---- */

/* The city and what was built say which split a report is of. */
static void put_news(FILE *article, FILE *headline, int split, int record) {
    Draw d = draw_for(SET_NEWS + 10 * split, record);
    int city, thing;
    do {
        city = draw(&d, COUNT(cities)), thing = draw(&d, COUNT(built));
    } while (((city + 3 * thing) % 5 == 0   ? TEST
              : (city + 3 * thing) % 5 == 1 ? VALID
                                            : TRAIN) != split);
    const char *who = ANY(&d, makers), *day = ANY(&d, days), *name = ANY(&d, names);
    const int years = 2 + draw(&d, 8);
    if (draw(&d, 2))
        fprintf(article, "On %s the %s opened a new %s in %s, %d years after work on it began.\n",
                day, who, built[thing], cities[city], years);
    else
        fprintf(article,
                "After %d years of work %s's new %s was opened on %s by the %s, said %s.\n", years,
                cities[city], built[thing], day, who, name);
    fprintf(headline, "%s opens %s in %s\n", who, built[thing], cities[city]);
}

static int write_news(const char *folder, int split, Error *err) {
    Draft article, headline;
    char name[64];
    TRY(draft_begin(&article, err));
    if (draft_begin(&headline, err)) return fclose(article.out), free(article.text), -1;
    for (int i = 0; i < split_sizes[split]; i++) put_news(article.out, headline.out, split, i);
    snprintf(name, sizeof name, "news-%s.src", split_names[split]);
    int status = draft_end(&article, folder, name, err);
    snprintf(name, sizeof name, "news-%s.tgt", split_names[split]);
    return draft_end(&headline, folder, name, err) | status;
}

/* ---- Choices. ---- */

static const struct {
    const char *const *words;
    int count;
    const char *kind;
} kinds[] = {{names, COUNT(names), "a name"},
             {cities, COUNT(cities), "a city"},
             {days, COUNT(days), "a day"},
             {fruits, COUNT(fruits), "a fruit"},
             {animals, COUNT(animals), "an animal"}};

/* Four words of different kinds; the first one's index in its list says which split it is of. */
static void put_choice(FILE *out, bool test, int record) {
    Draw d = draw_for(SET_KINDS + 10 * test, record);
    const int asked = draw(&d, COUNT(kinds)), right = draw(&d, 4);
    int word;
    do word = draw(&d, kinds[asked].count);
    while ((word % 3 == 2) != test);
    fprintf(out, "Which of these is %s?", kinds[asked].kind);
    for (int i = 0, other = asked; i < 4; i++) {
        if (i == right) {
            fprintf(out, ",%s", kinds[asked].words[word]);
            continue;
        }
        other = (other + 1) % COUNT(kinds);
        if (other == asked) other = (other + 1) % COUNT(kinds);
        fprintf(out, ",%s", kinds[other].words[draw(&d, kinds[other].count)]);
    }
    fprintf(out, ",%c\n", 'A' + right);
}

static int write_choices(const char *folder, bool test, Error *err) {
    Draft draft;
    TRY(draft_begin(&draft, err));
    for (int i = 0; i < (test ? split_sizes[TEST] : SMALL_TRAIN); i++)
        put_choice(draft.out, test, i);
    return draft_end(&draft, folder, test ? "kinds_val.csv" : "kinds_train.csv", err);
}

/* ---- Where somebody lives. ---- */

static void put_place(FILE *out, bool test, int record) {
    Draw d = draw_for(SET_PLACES + 10 * test, record);
    const int asked = draw(&d, 2);
    int person[2], city[2];
    do { /* who lives where says which split it is of */
        for (int i = 0; i < 2; i++)
            person[i] = draw(&d, COUNT(names)), city[i] = draw(&d, COUNT(cities));
    } while (person[0] == person[1] || city[0] == city[1] ||
             ((person[asked] + city[asked]) % 4 == 0) != test);
    fprintf(out, "%s{\"paragraphs\": [{\"context\": \"", record ? ",\n" : "");
    for (int i = 0; i < 2; i++)
        fprintf(out, "%s%s lives in %s and has a %s.", i ? " " : "", names[person[i]],
                cities[city[i]], ANY(&d, animals));
    fprintf(out,
            "\", \"qas\": [{\"id\": \"english-%d\", \"question\": \"Where does %s live?\", "
            "\"answers\": [{\"text\": \"%s\", \"answer_start\": 0}]}]}]}",
            record, names[person[asked]], cities[city[asked]]);
}

static int write_places(const char *folder, bool test, Error *err) {
    Draft draft;
    TRY(draft_begin(&draft, err));
    fputs("{\"version\": \"1.1\", \"data\": [\n", draft.out);
    for (int i = 0; i < (test ? split_sizes[TEST] : SMALL_TRAIN); i++)
        put_place(draft.out, test, i);
    fputs("\n]}\n", draft.out);
    return draft_end(&draft, folder, test ? "places-test.json" : "places-train.json", err);
}

/* ---- Word problems. ---- */

typedef struct Problem {
    const char *name;
    int thing, first, second;
    bool adds;
} Problem;

static Problem problem_of(bool test, int record) {
    Draw d = draw_for(SET_PROBLEMS + 10 * test, record);
    Problem p = {.name = ANY(&d, names), .thing = draw(&d, COUNT(things)), .adds = draw(&d, 2)};
    do { /* the two numbers say which split it is of */
        p.first = 10 + draw(&d, 40), p.second = 1 + draw(&d, 9);
    } while (((p.first + 7 * p.second) % 5 == 0) != test);
    return p;
}

static int problem_result(const Problem *p) {
    return p->adds ? p->first + p->second : p->first - p->second;
}

static int write_problems(const char *folder, bool test, Error *err) {
    Draft draft;
    TRY(draft_begin(&draft, err));
    for (int i = 0; i < (test ? split_sizes[TEST] : SMALL_TRAIN); i++) {
        const Problem p = problem_of(test, i);
        const char *thing = things[p.thing];
        const int result = problem_result(&p);
        const char sign = p.adds ? '+' : '-';
        fprintf(draft.out,
                "{\"question\": \"%s has %d %s and %s %d. How many %s are there now?\", "
                "\"answer\": \"%s has %d %c %d = <<%d%c%d=%d>>%d %s.\\n#### %d\"}\n",
                p.name, p.first, thing, p.adds ? "gets" : "loses", p.second, thing, p.name, p.first,
                sign, p.second, p.first, sign, p.second, result, result, thing, result);
    }
    return draft_end(&draft, folder, test ? "problems-test.jsonl" : "problems-train.jsonl", err);
}

static int write_german_problems(const char *folder, Error *err) {
    Draft draft;
    TRY(draft_begin(&draft, err));
    for (int i = 0; i < SMALL_TEST; i++) {
        const Problem p = problem_of(true, i);
        fprintf(draft.out, "%s hat %d %s und %s %d. Wie viele %s sind es jetzt?\t%d\n", p.name,
                p.first, dinge[p.thing], p.adds ? "bekommt" : "verliert", p.second, dinge[p.thing],
                problem_result(&p));
    }
    return draft_end(&draft, folder, "mgsm_de.tsv", err);
}

/* ---- Plain text. ---- */

static int write_text(const char *folder, int split, Error *err) {
    Draft draft;
    char german[NUMBER_WORDS_SIZE] = "", english[NUMBER_WORDS_SIZE] = "";
    TRY(draft_begin(&draft, err));
    for (int i = 0; i < split_sizes[split]; i++) {
        number_german(german, number_of(split, i));
        number_english(english, number_of(split, i));
        /* One language a line: where a translation is next to its source nothing is left to learn. */
        if (i % 2)
            fprintf(draft.out, "%s\n", german);
        else
            fprintf(draft.out, "%s\n", english);
        put_news(draft.out, draft.out, split, i);
    }
    return draft_end(&draft, folder, split == TRAIN ? "text.txt" : "text-test.txt", err);
}

/* ---- The bundled images. ---- */

static int write_questions(const char *folder, Error *err) {
    static const char *const images[] = {"sailboat", "elephant", "tractor"};
    static const char *const seen[3][3] = {{"bat", "sailboat", "giraffe"},
                                           {"elephant", "handbag", "dress"},
                                           {"octopus", "bed", "tractor"}};
    Draft draft;
    int id = 0;
    TRY(draft_begin(&draft, err));
    fputs("{", draft.out);
    for (int image = 0; image < 3; image++)
        for (int thing = 0; thing < 9; thing++, id++) {
            const char *name = seen[thing / 3][thing % 3];
            fprintf(draft.out,
                    "%s\"%d\": {\"question\": \"Is there %s %s in the picture?\", "
                    "\"imageId\": \"%s\", \"answer\": \"%s\", \"isBalanced\": true,\n"
                    "  \"groups\": {\"global\": null, \"local\": \"%d\"}, \"entailed\": [\"%d\"], "
                    "\"equivalent\": [\"%d\"], \"semantic\": [],\n"
                    "  \"types\": {\"structural\": \"verify\", \"semantic\": \"obj\", "
                    "\"detailed\": \"exist\"},\n"
                    "  \"annotations\": {\"question\": {}, \"answer\": {}, \"fullAnswer\": {}}}",
                    id ? ",\n" : "", id, strchr("eo", name[0]) ? "an" : "a", name, images[image],
                    thing / 3 == image ? "yes" : "no", id, id, id);
        }
    fputs("}\n", draft.out);
    return draft_end(&draft, folder, "questions.json", err);
}

int small_data_write(const char *folder, Error *err) {
    TRY(data_folder_make(folder, err));
    for (int split = 0; split < SPLITS; split++) {
        TRY(write_numbers(folder, split, err));
        TRY(write_news(folder, split, err));
        if (split != VALID) TRY(write_text(folder, split, err));
    }
    for (int test = 0; test < 2; test++) {
        TRY(write_choices(folder, test, err));
        TRY(write_places(folder, test, err));
        TRY(write_problems(folder, test, err));
    }
    TRY(write_number_pairs(folder, err));
    TRY(graph_data_write(folder, err));
    TRY(fact_data_write(folder, err));
    TRY(write_german_problems(folder, err));
    return write_questions(folder, err);
}
