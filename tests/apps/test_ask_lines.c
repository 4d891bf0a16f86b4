/* `ask --questions`: lines of JSON in and out; folders of images. */
#include <jansson.h>

#include "tests/program.h"
#include "tests/train_setup.h"

#define PHOTO "data/bundled/images/tractor.jpg"
#define OTHER "data/bundled/images/sailboat.jpg"

/* Line `i` (from 0) of the output. */
static json_t *line_of(const Run *r, int i) {
    const char *at = r->out;
    for (; i > 0; i--) {
        at = strchr(at, '\n');
        assert_non_null(at);
        at++;
    }
    json_t *object = json_loadb(at, strcspn(at, "\n"), 0, NULL);
    assert_non_null(object);
    return object;
}

static void check_text(const json_t *object, const char *key, const char *text) {
    const char *found = json_string_value(json_object_get(object, key));
    if (!text) assert_null(found);
    if (text) assert_non_null(found);
    if (text) assert_string_equal(found, text);
}

/* What `ask` answers to one question, sure or not. */
static void answer_of(char *image, char *question, char *out, size_t size) {
    Run r;
    run_start(&r);
    run(&r, "ask", "-q", "--sure-threshold", "0", image, question);
    assert_int_equal(r.status, 0);
    snprintf(out, size, "%.*s", (int)strcspn(r.out, "\n"), r.out);
    run_end(&r);
}

/* As the same questions one by one: with images of the lines and of the command line, turns, ids,
 * empty lines, and more lines than a batch has. */
static void test_lines(void **state) {
    (void)state;
    enum { LINES = 150 };
    Run r;
    char photo[200], other[200], *text = calloc(LINES, 200);
    assert_non_null(text);
    answer_of(PHOTO, "What is this?", photo, sizeof photo);
    answer_of(OTHER, "What is this?", other, sizeof other);
    assert_string_not_equal(photo, other);
    run_start(&r);
    size_t n = 0;
    for (int i = 0; i < LINES; i++)
        n += (size_t)sprintf(text + n, "{\"question\": \"What is this?\", \"id\": [%d]%s}\r\n%s", i,
                             i % 3 == 0   ? ", \"image\": \"" PHOTO "\""
                             : i % 3 == 1 ? ", \"image\": \"" OTHER "\", \"turns\": []"
                                          : "",
                             i % 50 ? "" : "\n");
    run_text(&r, text, "ask", "-q", "--questions", "-", OTHER, PHOTO);
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), LINES + LINES / 3);
    assert_string_equal(r.err, "");
    for (int i = 0, at = 0; i < LINES; i++)
        for (int k = 0; k < (i % 3 == 2 ? 2 : 1); k++, at++) {
            json_t *object = line_of(&r, at);
            const bool first = i % 3 == 0 || k;
            check_text(object, "image", first ? PHOTO : OTHER);
            check_text(object, "question", "What is this?");
            check_text(object, "answer", first ? photo : other);
            const json_t *id = json_object_get(object, "id");
            assert_int_equal(json_integer_value(json_array_get(id, 0)), i);
            assert_int_equal(json_integer_value(json_object_get(object, "line")),
                             i + 1 + (i + 49) / 50);
            json_decref(object);
        }
    /* Turns are read, and what does not fit is counted. */
    n = (size_t)sprintf(text, "{\"image\": \"" PHOTO "\", \"question\": \"Why?\", \"turns\": [");
    for (int i = 0; i < 60; i++)
        n += (size_t)sprintf(text + n,
                             "%s{\"question\": \"Is it a red or a green one?\", "
                             "\"answer\": \"a red one, a large one\"}",
                             i ? ", " : "");
    sprintf(text + n, "]}");
    run_text(&r, text, "ask", "-q", "--length", "3", "--questions", "-");
    expect(&r, 0, NULL);
    json_t *object = line_of(&r, 0);
    assert_in_range(json_integer_value(json_object_get(object, "dropped_turns")), 5, 55);
    json_decref(object);
    free(text);
    run_end(&r);
}

/* Lines that are not JSON are questions as they are. */
static void test_plain_lines(void **state) {
    (void)state;
    static const char lines[] = "What is this?\n\n \t\n  What is this? \r\n"
                                "{\"question\": \"What is this?\"}\nWas ist {das}? \xc3\xa4";
    Run r;
    char photo[200], german[200];
    answer_of(PHOTO, "What is this?", photo, sizeof photo);
    answer_of(PHOTO, "Was ist {das}? \xc3\xa4", german, sizeof german);
    run_start(&r);
    run_text(&r, lines, "ask", "-q", "--questions", "-", PHOTO);
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 4);
    for (int i = 0; i < 4; i++) {
        json_t *object = line_of(&r, i);
        check_text(object, "question", i < 3 ? "What is this?" : "Was ist {das}? \xc3\xa4");
        check_text(object, "answer", i < 3 ? photo : german);
        json_decref(object);
    }
    run_end(&r);
}

/* Each is reported with file and number, has its line of output, and costs the others nothing. */
static void test_bad_lines(void **state) {
    (void)state;
    static const char *const lines[][2] = {
        {"nonsense", "no \"image\", and none"},
        {"{\"question\": \"a\"", "expected near"},
        {"[1]", "not an object"},
        {"{\"image\": \"" PHOTO "\"}", "\"question\" is not a text"},
        {"{\"image\": 7, \"question\": \"What?\"}", "\"image\" is not a path"},
        {"{\"image\": \"no/such.png\", \"question\": \"What?\"}", "no/such.png"},
        {"{\"question\": \"What?\"}", "no \"image\", and none"},
        {"{\"image\": \"" PHOTO "\", \"question\": \" \"}", "nothing to answer"},
        {"{\"image\": \"" PHOTO "\", \"question\": \"What?\", \"lenght\": 3}", "\"lenght\""},
        {"{\"image\": \"" PHOTO "\", \"question\": \"a\", \"question\": \"b\"}", "question"},
        {"{\"image\": \"" PHOTO "\", \"question\": \"a\", \"turns\": {}}",
         "\"turns\" is not a list"},
        {"{\"image\": \"" PHOTO "\", \"question\": \"a\", \"turns\": [{\"question\": \"b\"}]}",
         "turn 1 is not"},
        {"{\"image\": \"" PHOTO "\", \"question\": \"a\", \"turns\": [[]]}", "turn 1 is not"},
        {"{\"image\": \"" PHOTO "\", \"question\": \"a\\u0000b\"}", "JSON"},
        {"\xff", "UTF-8"},
        {"\"nonsense\"", "expected near"},
    };
    enum { BAD = sizeof lines / sizeof lines[0] };
    static const char good[] = "{\"image\": \"" PHOTO "\", \"question\": \"What is this?\"}\n";
    Run r;
    char text[8192] = "", path[512], photo[200], number[64];
    answer_of(PHOTO, "What is this?", photo, sizeof photo);
    run_start(&r);
    for (int i = 0; i < BAD; i++) strcat(strcat(strcat(text, lines[i][0]), "\n"), good);
    write_file(&r, "many.jsonl", text, strlen(text), path, sizeof path);
    run(&r, "ask", "-q", "--questions", path);
    assert_int_equal(r.status, 1);
    assert_int_equal(count_lines(r.out), 2 * BAD);
    assert_int_equal(count_lines(r.err), BAD + 1);
    assert_non_null(strstr(r.err, "many.jsonl: 16 of 32 lines have no answer"));
    for (int i = 0; i < BAD; i++) {
        json_t *bad = line_of(&r, 2 * i), *fine = line_of(&r, 2 * i + 1);
        const char *why = json_string_value(json_object_get(bad, "error"));
        assert_non_null(why);
        if (!strstr(why, lines[i][1])) fail_msg("%s: %s", lines[i][0], why);
        snprintf(number, sizeof number, "many.jsonl: line %d: ", 2 * i + 1);
        assert_non_null(strstr(r.err, number));
        check_text(fine, "answer", photo);
        json_decref(bad), json_decref(fine);
    }
    run(&r, "ask", "--questions", "no/such.jsonl");
    assert_message(&r, 1, "no/such.jsonl");
    run(&r, "ask", "--questions", path, "What?");
    assert_message(&r, 2, "\"What?\" is not an image");
    run(&r, "ask", "--questions", path, "--show");
    assert_message(&r, 2, "--show");
    run(&r, "ask", "--questions", "-", "-");
    assert_message(&r, 2, "not -");
    run_end(&r);
}

/* A folder is the images in it, by name; other files are not. */
static void test_folders(void **state) {
    (void)state;
    Run r;
    char folder[512], text[4096], a[200], b[200];
    answer_of(PHOTO, "What is this?", a, sizeof a);
    answer_of(OTHER, "What is this?", b, sizeof b);
    run_start(&r);
    path_in(folder, sizeof folder, &r, "two photos");
    shell("mkdir '%s' && cp %s '%s/b one.JPG' && cp %s '%s/a.jpeg' && touch '%s/notes.txt' "
          "'%s/.hidden.jpg'",
          folder, PHOTO, folder, OTHER, folder, folder, folder);
    snprintf(text, sizeof text, "%s/a.jpeg\tWhat is this?\t%s\n%s/b one.JPG\tWhat is this?\t%s\n",
             folder, b, folder, a);
    run(&r, "ask", "-q", "--sure-threshold", "0", folder, "What is this?");
    expect(&r, 0, text);
    run(&r, "ask", "-q", "--sure-threshold", "0", "--image", folder, "What is this?");
    expect(&r, 0, text);
    run_text(&r, "{\"question\": \"What is this?\"}", "ask", "-q", "--questions", "-", folder);
    expect(&r, 0, NULL);
    assert_int_equal(count_lines(r.out), 2);
    shell("rm '%s'/*.*g '%s'/*.JPG", folder, folder);
    run(&r, "ask", "-q", folder, "What is this?");
    assert_message(&r, 1, "a folder without images");
    run(&r, "ask", "-q", PHOTO); /* not a terminal: no chat */
    assert_message(&r, 2, "no question is given");
    run_end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_plain_lines),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
