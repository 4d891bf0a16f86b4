/* data/prep/evaluate.sh on a world of three images and four questions, and on two lines of text: its
 * report has what the bundled model answers, the baselines, and the German question. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/program.h"

static const char questions[] =
    "{\"1\": {\"question\": \"Is there a cat in the picture?\", \"imageId\": \"tractor\","
    " \"answer\": \"no\", \"isBalanced\": true, \"types\": {\"structural\": \"verify\","
    " \"semantic\": \"obj\", \"detailed\": \"exist\"}},"
    "\"2\": {\"question\": \"What colour is the background?\", \"imageId\": \"elephant\","
    " \"answer\": \"pink\", \"isBalanced\": true, \"types\": {\"structural\": \"query\","
    " \"semantic\": \"global\", \"detailed\": \"backgroundColor\"}},"
    "\"3\": {\"question\": \"Is there a giraffe in the picture?\", \"imageId\": \"sailboat\","
    " \"answer\": \"yes\", \"isBalanced\": true, \"types\": {\"structural\": \"verify\","
    " \"semantic\": \"obj\", \"detailed\": \"exist\"}},"
    "\"4\": {\"question\": \"How many vehicles do you see?\", \"imageId\": \"tractor\","
    " \"answer\": \"1\", \"isBalanced\": true, \"types\": {\"structural\": \"query\","
    " \"semantic\": \"obj\", \"detailed\": \"count\"}},"
    "\"5\": {\"question\": \"Not scored?\", \"imageId\": \"sailboat\", \"answer\": \"no\","
    " \"isBalanced\": false}}\n";
static const char choices[] = "{\"1\": {\"valid\": [\"yes\", \"no\"]}, \"2\": {\"valid\": [\"red\","
                              " \"pink\", \"green\", \"gray\"]}, \"3\": {\"valid\": [\"yes\","
                              " \"no\"]}, \"4\": {\"valid\": [\"1\", \"2\", \"3\", \"4\"]}}\n";
static const char german[] =
    "[{\"id\": \"sailboat-de\", \"image\": \"sailboat.jpg\", \"conversations\": [{\"from\":"
    " \"human\", \"value\": \"<image>\\nIst eine Giraffe im Bild?\"},"
    " {\"from\": \"gpt\", \"value\": \"ja\"}]}]\n";
static const char lines[] =
    "{\"inputs\": \"Translate the sentences into English.  German: Handbuch English: \","
    " \"targets\": \"manual\"}\n"
    "{\"inputs\": \"Translate the sentences into English.  German: Emacs English: \","
    " \"targets\": \"Emacs\"}\n";

static void folder_make(const Run *r, const char *name) {
    char path[400];
    path_in(path, sizeof path, r, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

/* The report, or a failure with what the script printed. */
static char *evaluate(const Run *r) {
    char command[1200], path[400];
    size_t size;
    snprintf(command, sizeof command,
             "SWEEP_IMAGES=0 SWEEP_LINES=0 sh data/prep/evaluate.sh data/bundled/model '%s/world' "
             "'%s/text' '%s/out' >'%s/log' 2>&1",
             r->folder, r->folder, r->folder, r->folder);
    int status = system(command);
    path_in(path, sizeof path, r, "log");
    char *log = file_bytes(path, &size);
    if (status != 0) fail_msg("evaluate.sh: %.*s", log ? (int)size : 0, log ? log : "");
    free(log);
    path_in(path, sizeof path, r, "out/report.md");
    char *bytes = file_bytes(path, &size), *report = bytes ? strndup(bytes, size) : NULL;
    free(bytes);
    assert_non_null(report);
    return report;
}

static void test_report(void **state) {
    (void)state;
    if (system("python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null")) skip();
    Run r;
    char path[400], *images = realpath("data/bundled/images", NULL);
    run_start(&r);
    static const char *const folders[] = {"world", "world/gqa", "text"};
    for (int i = 0; i < 3; i++) folder_make(&r, folders[i]);
    write_file(&r, "world/gqa/test_questions.json", questions, strlen(questions), path,
               sizeof path);
    write_file(&r, "world/gqa/test_choices.json", choices, strlen(choices), path, sizeof path);
    write_file(&r, "world/scenes-test.json", german, strlen(german), path, sizeof path);
    write_file(&r, "text/test.translation-de.jsonl", lines, strlen(lines), path, sizeof path);
    path_in(path, sizeof path, &r, "world/images");
    assert_non_null(images);
    assert_int_equal(symlink(images, path), 0);
    free(images);

    char *report = evaluate(&r);
    /* rows: questions, with the image, lengths given; at the end commonest and chance */
    static const char *const rows[] = {
        "4 questions, 0 unanswered, 50 steps.",
        "| all | 4 | 100.0 | 100.0 |",
        "| existence | 2 | 100.0 | 100.0 |",
        "| 50.0 | 50.0 |\n| background | 1 | 100.0 |", /* "no" and "yes" are equally common */
        "| query/obj/count | 1 | 100.0 |",
        "| 100.0 | 25.0 | 1 |",
        "In German:",
        "| all | 1 | 100.0 |",
        "| translation-de: 3 lengths | 2 |",
        "| translation-de: copy of the source | 2 | 0.00 | ",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!strstr(report, rows[i])) fail_msg("\"%s\" is not in %s", rows[i], report);

    char *again = evaluate(&r); /* resumes: nothing is asked again */
    assert_string_equal(again, report);
    free(report), free(again);
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_report)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
