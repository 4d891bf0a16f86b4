/* Records in other languages: by CLD2, in lines of JSON, conversations and plain text; what is too
 * short to tell stays; wrong codes. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/formats/languages.h"
#include "data/sets/records.h"
#include "tests/program.h"

/* A build may lack CLD2: then the message says so. */
static Languages *opened(const char *list) {
    Languages *languages;
    Error err;
    if (languages_open(&languages, list, &err) == 0) return languages;
    assert_non_null(strstr(err.text, "libcld2-dev"));
    skip();
    return NULL;
}

static const struct {
    const char *text, *code; /* NULL: English, or not to be told */
} texts[] = {
    {"Is there a tractor in the picture?", NULL},
    {"12 + 13 = 25", NULL},
    {"no", NULL},
    {"Haus", NULL},
    {"", NULL},
    {"Which of these is a city? (A) dog (B) Rome (C) Monday (D) apple", NULL},
    {"Wie viele Äpfel sind es jetzt?", "de"},
    {"Translate the sentences into English. German: Der Hund läuft über die Straße und bellt. "
     "English: The dog runs across the street and barks.",
     "de"},
    {"Les enfants jouent dans le jardin pendant que leur mère prépare le dîner.", "fr"},
    {"Это предложение написано по-русски.", "ru"},
    {"二つの文を日本語で書きました。", "ja"},
};

static void test_texts(void **state) {
    (void)state;
    Languages *english = opened("en"), *three = opened("en,de,ru");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        LanguageShares shares = {0}, more = {0};
        languages_add(&shares, english, texts[i].text);
        if (languages_exclude(&shares) != (texts[i].code != NULL))
            fail_msg("%s: %g of English, %g of %s", texts[i].text, shares.kept, shares.other,
                     shares.code);
        if (texts[i].code) assert_string_equal(shares.code, texts[i].code);
        languages_add(&more, three, texts[i].text);
        const bool kept = !texts[i].code || strstr("en,de,ru", texts[i].code);
        assert_int_equal(languages_exclude(&more), !kept);
    }
    languages_close(english), languages_close(three);
    languages_close(NULL);
}

static void test_codes(void **state) {
    (void)state;
    static const char *const wrong[] = {"", "en,", "klingon", "en;de", "e n", "not-", "en,not-de"};
    languages_close(opened("en,zh"));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Languages *languages;
        Error err;
        assert_int_equal(languages_open(&languages, wrong[i], &err), -1);
        assert_null(languages);
        assert_non_null(strstr(err.text, "languages"));
    }
}

static void check_file(const char *text, const char *languages, int kept, int64_t noted,
                       const char *first) {
    char path[] = "/tmp/easyfirst-languages-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_true(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    const RecordsOptions options = {.text_lines = true, .languages = languages};
    Records *records;
    Skipped skipped = {0};
    Error err;
    const int status = records_open(&records, path, &options, &skipped, &err);
    if (kept) {
        if (status) fail_msg("%s", err.text);
        assert_int_equal(records_count(records), kept);
        for (int i = 0; i < kept; i++) {
            Record record;
            assert_int_equal(records_read(records, i, &record, &err), 0);
            const char *german = strstr(record.turns[0].prompt, "Hund");
            assert_int_equal(german && languages && strcmp(languages, "en,de") &&
                                 strcmp(languages, "not-fr,not-ru"),
                             0);
            record_free(&record);
        }
    } else {
        assert_int_equal(status, -1);
        assert_non_null(strstr(err.text, "in another language"));
    }
    assert_int_equal(skipped.total, 0);
    assert_int_equal(skipped.kind_count, noted > 0);
    if (noted) {
        assert_int_equal(skipped.kinds[0].count, noted);
        assert_true(skipped.kinds[0].note);
        assert_string_equal(skipped.kinds[0].kind, "in another language");
        if (!strstr(skipped.kinds[0].first, first)) fail_msg("%s", skipped.kinds[0].first);
    }
    records_close(records);
    unlink(path);
}

static void test_records(void **state) {
    (void)state;
    languages_close(opened("en"));
    static const char pairs[] =
        "{\"inputs\": \"Is the house red?\", \"targets\": \"yes\"}\n"
        "{\"inputs\": \"Warum bellt der Hund in der Nacht so laut?\", \"targets\": \"no\"}\n"
        "{\"inputs\": \"Say it in other words: the dog barks at night.\", \"targets\": \"Der Hund "
        "bellt in der Nacht.\"}\n"
        "{\"inputs\": \"1 + 1\", \"targets\": \"2\"}\n";
    check_file(pairs, "en", 2, 2, "line 2: de");
    check_file(pairs, "en,de", 4, 0, NULL);
    check_file(pairs, NULL, 4, 0, NULL);
    check_file(pairs, "not-de", 2, 2, "line 2: de");
    check_file(pairs, "not-fr,not-ru", 4, 0, NULL);
    check_file(pairs, "fr", 1, 3, "line 1: en"); /* the sum remains */
    check_file("[{\"conversations\": [{\"from\": \"human\", \"value\": \"What do you see in the "
               "image?\"}, {\"from\": \"gpt\", \"value\": \"Auf dem Bild ist eine Katze zu sehen, "
               "die auf dem Dach schläft.\"}]}]",
               "en", 0, 1, "record 1: de");
    check_file("The cat sleeps on the roof.\nLe chat dort sur le toit de la maison.\n", "en", 1, 1,
               "line 2: fr");
}

/* By the program: what is left out is named and counted. */
static void test_program(void **state) {
    (void)state;
    languages_close(opened("en"));
    static const char pairs[] =
        "{\"inputs\": \"Is the house red?\", \"targets\": \"yes\"}\n"
        "{\"inputs\": \"Warum bellt der Hund in der Nacht so laut?\", \"targets\": \"no\"}\n";
    Run r;
    char data[400], out[400];
    run_start(&r);
    write_file(&r, "pairs.jsonl", pairs, strlen(pairs), data, sizeof data);
    path_in(out, sizeof out, &r, "pruned");
    run(&r, "prune", "-m", "tests/golden/models/tiny-base", "--data", data, "--languages", "en",
        out);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.err, "in another language: 1 ("));
    assert_non_null(strstr(r.err, "line 2: de"));
    path_in(out, sizeof out, &r, "run");
    run(&r, "train", "adapt", "-m", "tests/golden/models/tiny-base", "--data", data, "--languages",
        "en", "--steps", "1", "--batch-tokens", "64", "--warmup-ratio", "0", "--out", out);
    expect(&r, 0, NULL);
    assert_non_null(strstr(r.err, "1 x in another language, the first: "));
    path_in(out, sizeof out, &r, "other");
    run(&r, "train", "adapt", "-m", "tests/golden/models/tiny-base", "--data", data, "--languages",
        "en,xx", "--out", out);
    assert_message(&r, 1, "languages", "no language \"xx\"");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
