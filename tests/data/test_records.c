/* test_records.c - training data as records: every format, what is wrong with files, and how much
 * memory a large one takes. */
#include "tests/test.h"

#include <fcntl.h>
#include <math.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/records_data.h"

/* ---- Formats. ---- */

static const char conversations[] =
    "\xEF\xBB\xBF [\r\n"
    " {\"id\": \"000\\u00e9\", \"image\": \"a/b.jpg\", \"model\": [1, {\"x\": \"]\\\"}\"}],\n"
    "  \"conversations\": [{\"from\": \"human\", \"value\": \"<image>\\nWhat is it?\"},\n"
    "   {\"from\": \"gpt\", \"value\": \"A \\\"dog\\\" [\\\\\"}]},\r\n"
    " {\"id\": 12, \"images\": [\"c.jpg\"], \"conversations\": [{\"from\": \"system\", \"value\": "
    "\"Be kind.\"},"
    "   {\"from\": \"user\", \"value\": \"Say it \\n <image> \\t now\"},"
    "   {\"from\": \"assistant\", \"value\": \"one\"}, {\"from\": \"gpt\", \"value\": \"two\"},"
    "   {\"from\": \"human\", \"value\": \"dropped\"}, {\"from\": \"human\", \"value\": "
    "\"Three?\"},"
    "   {\"from\": \"gpt\", \"value\": \" three \"}, {\"from\": \"human\", \"value\": \"no "
    "answer\"}]}\n"
    ",{\"image\": null, \"images\": [], \"conversations\": [{\"from\": \"human\", \"value\": \"\\n "
    "\\n\"},"
    "   {\"from\": \"gpt\", \"value\": \"x\"}]},"
    " {\"image\": [\"d/e.png\"], \"id\": null, \"conversations\": [{\"from\": \"human\", "
    "\"value\": \"Where<image>\"},{\"from\": \"gpt\", \"value\": \"y\"}]}]\n \n";

static void expect_conversations(const Data *d) {
    expect_record(d, 0, "000\xC3\xA9", "a/b.jpg", 1);
    expect_turn(d, 0, 0, "What is it?", "A \"dog\" [\\");
    expect_record(d, 1, "12", "c.jpg", 3);
    expect_turn(d, 1, 0, "Say it now", "one");
    expect_turn(d, 1, 1, "", "two");
    expect_turn(d, 1, 2, "Three?", " three ");
    expect_record(d, 2, "", NULL, 1);
    expect_turn(d, 2, 0, "\n \n", "x");
    expect_record(d, 3, "", "d/e.png", 1);
    expect_turn(d, 3, 0, "Where", "y");
}

static void test_conversations(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    accept(&d, conversations, 4, 4);
    assert_int_equal(d.skipped.total, 0);
    expect_problem(&d, "system prompt", 1, "id 12: left out");
    expect_problem(&d, "question without an answer", 1, "id 12: 2 of them");
    assert_int_equal(skipped_check(&d.skipped, 4, 0, &d.err), 0);
    expect_conversations(&d);
    Record record;
    char path[700], want[700];
    assert_ok(records_read(d.records, 0, &record, &d.err), &d.err);
    assert_ok(records_image_path(d.records, &record, path, sizeof path, &d.err), &d.err);
    snprintf(want, sizeof want, "%s/a/b.jpg", d.folder);
    assert_string_equal(path, want);
    assert_refused(records_image_path(d.records, &record, path, 10, &d.err), &d.err, "a/b.jpg");
    record_free(&record);
    assert_refused(records_read(d.records, 4, &record, &d.err), &d.err, "no record 4");
    assert_refused(records_read(d.records, -1, &record, &d.err), &d.err, "no record -1");
    /* The same objects, a line each. */
    char lines[sizeof conversations];
    size_t n = 0, depth = 0;
    bool text = false;
    for (const char *p = strchr(conversations, '[') + 1; *p; p++) {
        if (*p == '\\') {
            lines[n++] = *p++;
            lines[n++] = *p;
            continue;
        }
        if (*p == '"') text = !text;
        if (!text && (*p == '\n' || *p == '\r')) continue;
        if (!text && *p == '{') depth++;
        if (!text && *p == '}') depth--;
        if (depth > 0 || *p == '}') lines[n++] = *p;
        if (depth == 0 && *p == '}') lines[n++] = '\r', lines[n++] = '\n', lines[n++] = '\n';
    }
    lines[n] = 0;
    accept(&d, lines, 4, 4);
    expect_conversations(&d);
    d.options.limit = 2;
    accept(&d, lines, 2, 2);
    data_end(&d);
}

static void test_pairs(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    accept(&d,
           "\n{\"inputs\": \" Q: 1 + 1? \", \"targets\": \"2\"}\r\n"
           "{\"inputs\": \"x\", \"targets\": \" \\u00a0\\n\"}\n"
           "{\"inputs\": 7, \"targets\": \"x\"}\n"
           "{\"inputs\": \"no targets\"}\n"
           "not JSON\n"
           "{\"inputs\": \"cut\n"
           "{\"inputs\": \"a\\u0000b\", \"targets\": \"x\"}\n"
           "{\"inputs\": \"a\\ud800\", \"targets\": \"x\"}\n"
           "{\"inputs\": \"a\xFF\", \"targets\": \"x\"}\n"
           "[1]\n"
           "{\"inputs\": \"\", \"targets\": \"end\"}",
           2, 11);
    expect_turn(&d, 0, 0, " Q: 1 + 1? ", "2");
    expect_turn(&d, 1, 0, "", "end");
    assert_int_equal(d.skipped.total, 9);
    expect_problem(&d, "empty answer", 1, "line 3: \"targets\"");
    expect_problem(&d, "wrong type", 3, "line 4: \"inputs\" is a number");
    expect_problem(&d, "not JSON", 2, "line 6");
    expect_problem(&d, "NUL byte", 1, "line 8: \"inputs\"");
    expect_problem(&d, "not text", 2, "line 9");
    accept(&d, "[{\"inputs\": \"a\", \"targets\": \"b\"}]", 1, 1);
    expect_turn(&d, 0, 0, "a", "b");
    /* A scan of raw NUL bytes neither stops early nor crashes. */
    const char nul[] =
        "{\"inputs\": \"\0\", \"targets\": \"x\"}\n\0\n{\"inputs\":\"a\",\"targets\":\"b\"}";
    write_bytes(&d, "data", nul, sizeof nul - 1);
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_count(d.records), 1);
    expect_problem(&d, "not JSON", 2, "line 1");
    data_end(&d);
}

static void test_text(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    const char *text =
        "\xEF\xBB\xBF\n  First line\r\nsecond line \r\n \t\r\n\r\nAnother.\n\n\xFFno\n\nlast";
    accept(&d, text, 3, 4);
    expect_record(&d, 0, "", NULL, 1);
    expect_turn(&d, 0, 0, "", "First line\r\nsecond line");
    expect_turn(&d, 1, 0, "", "Another.");
    expect_turn(&d, 2, 0, "", "last");
    expect_problem(&d, "not UTF-8", 1, "line 8");
    d.options.text_lines = true;
    accept(&d, text, 4, 5);
    expect_turn(&d, 0, 0, "", "First line");
    expect_turn(&d, 1, 0, "", "second line");
    const char nul[] = "one\ntw\0o\n";
    write_bytes(&d, "data", nul, sizeof nul - 1);
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_count(d.records), 1);
    expect_problem(&d, "NUL byte", 1, "line 2");
    refuse(&d, "", "data", "empty");
    refuse(&d, "\xEF\xBB\xBF \r\n ", "data", "empty");
    data_end(&d);
}

/* Lines and paragraphs that do not fit into what is read at once. */
static void test_long_pieces(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    enum { LONG = 1 << 20, MOST = WINDOW_MOST };
    char *text = malloc(2 * LONG + 16);
    assert_non_null(text);
    memset(text, 'a', 2 * LONG + 16);
    text[0] = text[LONG] = text[LONG + 2] = '\n';
    memcpy(text + 2 * LONG, "\n\nend", 6);
    accept(&d, text, 2, 2); /* the two long lines are one paragraph */
    expect_turn(&d, 1, 0, "", "end");
    d.options.text_lines = true;
    accept(&d, text, 4, 4);
    expect_turn(&d, 1, 0, "", "a");
    expect_turn(&d, 3, 0, "", "end");
    free(text);
    /* More than the limit without an end: left out, and what follows is read. */
    snprintf(d.file, sizeof d.file, "%s/data", d.folder);
    FILE *f = fopen(d.file, "wb");
    assert_non_null(f);
    fputs("begin\n\n", f);
    char block[1 << 16];
    memset(block, 'b', sizeof block);
    for (size_t i = 0; i < (MOST + LONG) / sizeof block; i++) fwrite(block, 1, sizeof block, f);
    fputs("\nlast of it\n\nend\n", f);
    assert_int_equal(fclose(f), 0);
    d.options.text_lines = false;
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_count(d.records), 2);
    expect_turn(&d, 1, 0, "", "end");
    expect_problem(&d, "too long", 1, "line 3");
    data_end(&d);
}

/* ---- What is wrong. ---- */

static void test_records_left_out(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    write_bytes(&d, "there.jpg", "x", 1);
    write_bytes(&d, "empty.jpg", "", 0);
    char folder[700];
    snprintf(folder, sizeof folder, "%s/folder", d.folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    d.options.check_images = true;
    accept(&d,
           "[{\"id\": \"ok\", \"image\": \"there.jpg\", " TALK "},"
           "{\"id\": \"one\", \"image\": \"missing.jpg\", " TALK "},"
           "{\"id\": 2, \"image\": \"empty.jpg\", " TALK "},"
           "{\"id\": 3, \"image\": \"/etc/passwd\", " TALK "},"
           "{\"id\": 4, \"image\": \"a/../../b.jpg\", " TALK "},"
           "{\"id\": 5, \"image\": 5, " TALK "},"
           "{\"id\": 6, \"image\": \"folder\", " TALK "},"
           "{\"id\": 7.5, " TALK "},"
           "{\"id\": 8, \"image\": \"there.jpg\"},"
           "{\"id\": 9, \"conversations\": {}},"
           "{\"id\": 10, \"conversations\": [\"x\"]},"
           "{\"id\": 11, \"conversations\": [{\"from\": \"gpt\"}]},"
           "{\"id\": 12, \"conversations\": [{\"from\": \"human\", \"value\": \"q\"}]},"
           "{\"id\": 13, \"conversations\": []},"
           "{\"id\": 14, \"conversations\": [{\"from\": \"robot\", \"value\": \"q\"}]},"
           "{\"id\": 15, \"conversations\": [{\"from\": \"gpt\", \"value\": \"\"}, {\"from\": "
           "\"gpt\", \"value\": \"kept\"}]},"
           "{\"id\": 16, \"image\": \"a..b/..c.jpg/..\", " TALK "},"
           "\"text\", 17, null, true, {}, 123456789012345678901234567890, \"\xC3\x28\"]",
           2, 24);
    expect_record(&d, 0, "ok", "there.jpg", 1);
    expect_record(&d, 1, "15", NULL, 1);
    expect_turn(&d, 1, 0, "", "kept");
    expect_problem(&d, "no such image", 2, "record 2, id one: missing.jpg");
    expect_problem(&d, "empty image file", 1, "id 2: empty.jpg");
    expect_problem(&d, "image outside of the folder", 3, "id 3: /etc/passwd");
    expect_problem(&d, "wrong type", 9, "id 5: \"image\" is a number");
    expect_problem(&d, "no conversations", 2, "\"id\", \"image\"");
    expect_problem(&d, "no answered turn", 2, "id 12");
    expect_problem(&d, "unknown speaker", 1, "\"robot\"");
    expect_problem(&d, "empty answer", 1, "id 15: turn 1");
    expect_problem(&d, "not text", 2, "record 23");
    assert_int_equal(d.skipped.total, 23);
    assert_int_equal(skipped_check(&d.skipped, 24, 1, &d.err), 0);
    assert_refused(skipped_check(&d.skipped, 24, 0.5, &d.err), &d.err, "23 of 24 records", "50 %",
                   "no such image: 2", "not text: 2");
    assert_refused(skipped_check(&d.skipped, 24, NAN, &d.err), &d.err, "23 of 24");
    /* Only when it is asked for; and without a folder every image is a problem. */
    d.options.check_images = false;
    accept(&d, "[{\"id\": \"one\", \"image\": \"missing.jpg\", " TALK "}]", 1, 1);
    d.options.images = NULL;
    accept(&d, "[{\"image\": \"missing.jpg\", " TALK "}, {" TALK "}]", 1, 2);
    expect_problem(&d, "image without a folder", 1, "missing.jpg");
    data_end(&d);
}

static void test_malformed_arrays(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    refuse(&d, "[{" TALK "},\n {" TALK " \"id\": 1}]", "line 2, column 88", "element 2", "byte");
    refuse(&d, "[{" TALK "}\n\n{" TALK "}]", "line 3, column 1", "comma", "element 1");
    refuse(&d, "[\n{" TALK "},\n]", "line 3, column 1", "after the comma");
    refuse(&d, "[,{" TALK "}]", "line 1, column 2", "malformed JSON in element 1");
    refuse(&d, "[{" TALK "}] x", "after the end", "column");
    refuse(&d, "[{" TALK "}][]", "after the end");
    refuse(&d, "[{" TALK "}", "the file ends after element 1");
    refuse(&d, "[{" TALK "},", "the file ends inside");
    refuse(&d, "[\n {" TALK "},\n  {\"id\": \"1\", \"conv", "line 3, column 3", "element 2",
           "truncated");
    refuse(&d, "[\n {" TALK "},\n  {\"id\": \"1, " TALK "}]", "line 3", "element 2");
    refuse(&d, "[{\"id\": 1]]", "line 1, column 10", "byte 9");
    refuse(&d, "[}]", "element 1");
    refuse(&d, "[nul]", "element 1", "line 1, column");
    refuse(&d, "[Music] is plain text", "line 1, column 6", "malformed JSON");
    refuse(&d, "[]", "no records");
    refuse(&d, "[1]", "none of its 1 records", "a number");
    refuse(&d, "{\"a\": 1}\n{\"b\": 2}", "none of its 2 records", "\"a\"");
    refuse(&d, "{\n\"data\": []\n}\n", "\"data\" is the array of records");
    snprintf(d.file, sizeof d.file, "%s/nothing", d.folder);
    assert_refused(scan(&d), &d.err, "nothing", "No such file");
    snprintf(d.file, sizeof d.file, "/dev/null");
    assert_refused(scan(&d), &d.err, "a device; data are read more than once");
    data_end(&d);
}

/* An element larger than what is allowed is refused with its place. */
static void test_endless_element(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    snprintf(d.file, sizeof d.file, "%s/data", d.folder);
    FILE *f = fopen(d.file, "wb");
    assert_non_null(f);
    fputs("[\n{\"id\": \"", f);
    char block[1 << 16];
    memset(block, 'b', sizeof block);
    for (int i = 0; i < 18 << 4; i++) fwrite(block, 1, sizeof block, f);
    fputs("\", " TALK "}]", f);
    assert_int_equal(fclose(f), 0);
    assert_refused(scan(&d), &d.err, "line 2, column 1", "16 MiB");
    data_end(&d);
}

/* A text full of escapes, longer than what is read at once: the end of a block falls on either half
 * of one. */
static void test_escapes(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    enum { TIMES = 400000 };
    char *text = malloc(3 * TIMES + 200);
    assert_non_null(text);
    for (int shift = 0; shift < 3; shift++) {
        char *p = text + sprintf(text, "[{\"inputs\": \"%.*s\", \"targets\": \"", shift, "xx");
        for (int i = 0; i < TIMES; i++) p = stpcpy(p, "\\\"}");
        strcpy(p, "\"}, {\"inputs\": \"\", \"targets\": \"]\"}]");
        accept(&d, text, 2, 2);
        Record record;
        assert_ok(records_read(d.records, 0, &record, &d.err), &d.err);
        assert_int_equal(strlen(record.turns[0].response), 2 * TIMES);
        record_free(&record);
        expect_turn(&d, 1, 0, "", "]");
    }
    free(text);
    data_end(&d);
}

/* ---- Mixtures. ---- */

static void test_mixture(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    write_text(&d, "b.jsonl", "{\"inputs\":\"b\",\"targets\":\"B\"}\nbad\n");
    write_text(&d, "a.jsonl",
               "{\"inputs\":\"a1\",\"targets\":\"A\"}\n"
               "{\"inputs\":\"a2\",\"targets\":\"A\"}\n");
    write_text(&d, "c.json", "[{" TALK "}]");
    write_text(&d, "ratio.json", "{\"b.jsonl\": 0.25, \"c.json\": 2, \"a.jsonl\": 1e3}");
    strcpy(d.file, d.folder);
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_sources(d.records), 3);
    static const char *const names[] = {"a.jsonl", "b.jsonl", "c.json"};
    static const double weights[] = {1000, 0.25, 2};
    static const int64_t begins[] = {0, 2, 3, 4};
    for (int s = 0; s < 3; s++) {
        int64_t begin, end;
        double weight;
        assert_string_equal(records_source(d.records, s, &begin, &end, &weight), names[s]);
        assert_true(begin == begins[s] && end == begins[s + 1] && weight == weights[s]);
    }
    expect_turn(&d, 1, 0, "a2", "A");
    expect_turn(&d, 2, 0, "b", "B");
    expect_turn(&d, 3, 0, "q", "a");
    expect_problem(&d, "not JSON", 1, "b.jsonl: line 2");
    static const char *const bad[][2] = {{"{}", "names no file"},
                                         {"{\"a.jsonl\": 0}", "a.jsonl"},
                                         {"{\"a.jsonl\": -1}", "above 0"},
                                         {"{\"a.jsonl\": \"1\"}", "number"},
                                         {"{\"a.jsonl\": {\"x\": 1}}", "number"},
                                         {"{\"gone.jsonl\": 1}", "gone.jsonl"},
                                         {"{\"a.jsonl\": 1, \"a.jsonl\": 1}", "ratio.json"},
                                         {"[1]", "ratio.json"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_text(&d, "ratio.json", bad[i][0]);
        strcpy(d.file, d.folder);
        assert_refused(scan(&d), &d.err, bad[i][1]);
    }
    snprintf(d.file, sizeof d.file, "%s/ratio.json", d.folder);
    unlink(d.file);
    strcpy(d.file, d.folder);
    assert_refused(scan(&d), &d.err, "ratio.json", d.folder);
    data_end(&d);
}

/* More files than are kept open. */
static void test_many_files(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    enum { FILES = 200 };
    char ratio[FILES * 32], name[32], line[64];
    int size = 0;
    for (int i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%03d.jsonl", i);
        snprintf(line, sizeof line, "{\"inputs\":\"%d\",\"targets\":\"t\"}\n", i);
        write_text(&d, name, line);
        size += snprintf(ratio + size, sizeof ratio - (size_t)size, "%c\"%s\": %d", i ? ',' : '{',
                         name, i + 1);
    }
    strcpy(ratio + size, "}");
    write_text(&d, "ratio.json", ratio);
    strcpy(d.file, d.folder);
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_count(d.records), FILES);
    for (int i = 0; i < FILES; i++) {
        snprintf(line, sizeof line, "%d", i);
        expect_turn(&d, i, 0, line, "t");
    }
    data_end(&d);
}

/* ---- Files that change, fingerprints. ---- */

static void test_changed_files(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    const char text[] =
        "{\"inputs\":\"a\",\"targets\":\"b\"}\n{\"inputs\":\"c\",\"targets\":\"d\"}\n";
    accept(&d, text, 2, 2);
    uint64_t first = records_fingerprint(d.records);
    assert_ok(scan(&d), &d.err);
    assert_true(records_fingerprint(d.records) == first);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1}};
    assert_int_equal(utimensat(AT_FDCWD, d.file, times, 0), 0);
    assert_ok(scan(&d), &d.err);
    assert_true(records_fingerprint(d.records) == first);
    /* The same bytes elsewhere; and one byte less alike. */
    write_text(&d, "copy.jsonl", text);
    assert_ok(scan(&d), &d.err);
    assert_true(records_fingerprint(d.records) == first);
    char other[sizeof text];
    for (size_t i = 10; i < sizeof text - 2; i++) {
        memcpy(other, text, sizeof text);
        other[i] = other[i] == 'x' ? 'y' : 'x';
        write_text(&d, "copy.jsonl", other);
        if (scan(&d) == 0) assert_false(records_fingerprint(d.records) == first);
    }
    accept(&d, text, 2, 2);
    assert_int_equal(truncate(d.file, (off_t)sizeof text - 9), 0);
    Record record;
    assert_refused(records_read(d.records, 1, &record, &d.err), &d.err, "truncated");
    FILE *f = fopen(d.file, "r+");
    fputs("{{{", f);
    fclose(f);
    assert_refused(records_read(d.records, 0, &record, &d.err), &d.err, "changed");
    data_end(&d);
}

/* ---- Damage. ---- */

/* Whatever happens to the bytes: an error with its line, or records that can be read. */
static void survive(Data *d, const char *bytes, size_t size) {
    write_bytes(d, "data", bytes, size);
    if (scan(d) != 0) {
        check_message(&d->err, "records_open", (const char *[]){d->file, NULL});
        assert_null(d->records);
        return;
    }
    assert_true(records_count(d->records) > 0);
    for (int64_t i = 0; i < records_count(d->records); i++) {
        Record record;
        assert_ok(records_read(d->records, i, &record, &d->err), &d->err);
        assert_true(record.count > 0);
        record_free(&record);
    }
}

static void test_damage(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    TestRandom random = {(uint64_t)time(NULL)};
    printf("seed %llu\n", (unsigned long long)random.state);
    static const char lines[] =
        "{\"id\": 1, " TALK "}\n{\"inputs\": \"a\\n\\u00fc\", \"targets\": \"b\"}\n";
    static const char *const files[] = {conversations, lines,
                                        "one\ntwo\n\nthree\xC3\xA9 \xE3\x80\x80\n"};
    for (int i = 0; i < 1200; i++) {
        char bytes[sizeof conversations];
        const char *file = files[i % 3];
        size_t size = strlen(file);
        memcpy(bytes, file, size);
        if (i % 2) size = test_random_next(&random) % (size + 1);
        int changes = i % 2 ? 0 : 1 + (int)(test_random_next(&random) % 4);
        for (int c = 0; c < changes; c++) {
            static const char telling[] = "\"\\{}[],:\n\0 \xFF";
            uint64_t r = test_random_next(&random);
            bytes[r % size] =
                r >> 32 & 1 ? telling[(r >> 40) % (sizeof telling - 1)] : (char)(r >> 48);
        }
        survive(&d, bytes, size);
    }
    data_end(&d);
}

/* ---- A large one. ---- */

static void write_large(Data *d, int elements, size_t *size) {
    snprintf(d->file, sizeof d->file, "%s/data", d->folder);
    FILE *f = fopen(d->file, "wb");
    assert_non_null(f);
    fputc('[', f);
    for (int i = 0; i < elements; i++) {
        fprintf(f,
                "%s\n  {\n    \"id\": \"%09d\",\n    \"image\": \"coco/train2017/%09d.jpg\",\n"
                "    \"conversations\": [",
                i ? "," : "", i, i);
        for (int t = 0; t < 1 + i % 5; t++)
            fprintf(
                f,
                "%s\n      {\"from\": \"human\", \"value\": \"%sWhat are the colours of the bus "
                "in the picture, and where does it stand? [%d]\"},\n"
                "      {\"from\": \"gpt\", \"value\": \"The bus of \\\"line %d\\\" is white and "
                "red "
                "and stands at the side of a wet road, close to a crossing with a few trees "
                "behind it; people are waiting to get on, one of them with an umbrella.\"}",
                t ? "," : "", t ? "" : "<image>\\n", t, i);
        fputs("\n    ]\n  }", f);
    }
    fputs("\n]\n", f);
    *size = (size_t)ftell(f);
    assert_int_equal(fclose(f), 0);
}

static void test_large_array(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    enum { ELEMENTS = 36000 };
    size_t size;
    write_large(&d, ELEMENTS, &size);
    struct rusage before, after;
    struct timespec t0, t1;
    getrusage(RUSAGE_SELF, &before);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    assert_ok(scan(&d), &d.err);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    getrusage(RUSAGE_SELF, &after);
    assert_int_equal(records_count(d.records), ELEMENTS);
    assert_int_equal(d.skipped.total, 0);
    double seconds = (double)(t1.tv_sec - t0.tv_sec) + 1e-9 * (double)(t1.tv_nsec - t0.tv_nsec);
    long grown = after.ru_maxrss - before.ru_maxrss;
    printf("%.1f MB in %.2f s (%.0f MB/s), memory grew by %ld KB\n", 1e-6 * (double)size, seconds,
           1e-6 * (double)size / seconds, grown);
#ifndef __SANITIZE_ADDRESS__
    assert_true(size > 36u << 20 && grown < 4 << 10);
#endif
    int wrong = 0; /* several threads at once: cmocka's checks are for one */
#pragma omp parallel for num_threads(4) reduction(+ : wrong)
    for (int i = 0; i < 2000; i++) {
        Record record;
        char id[16];
        int index = (i * 7919) % ELEMENTS;
        snprintf(id, sizeof id, "%09d", index);
        wrong += records_read(d.records, index, &record, NULL) != 0 || strcmp(record.id, id) ||
                 record.count != 1 + index % 5;
        record_free(&record);
    }
    assert_int_equal(wrong, 0);
    TestRandom random = {7};
    for (int i = 0; i < 100; i++) {
        int index = (int)(test_random_next(&random) % ELEMENTS);
        char id[16], image[64];
        snprintf(id, sizeof id, "%09d", index);
        snprintf(image, sizeof image, "coco/train2017/%09d.jpg", index);
        expect_record(&d, index, id, image, 1 + index % 5);
    }
    data_end(&d);
}

/* ---- Real files. ---- */

static void test_shared_files(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int64_t records;
        const char *first; /* of the answers */
    } files[] = {{"iwslt14/valid.deen.jsonl", 7283, "it's that pyramid."},
                 {"bbh/0shot.snarks.jsonl", 36, "B"},
                 {"mgsm/0shot.de.jsonl", 250, NULL},
                 {"mgsm/3shot.en.jsonl", 250, NULL},
                 {"mmlu/val.0shot.jsonl", 1531, "A"},
                 {"tydiqa/0shot.finnish.jsonl", 782, NULL}};
    if (!shared_file(files[0].name)) skip();
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        Data d = {.options = {.limit = 0}};
        snprintf(d.file, sizeof d.file, "%s", shared_file(files[i].name));
        assert_ok(scan(&d), &d.err);
        assert_int_equal(records_scanned(d.records), files[i].records);
        assert_int_equal(records_count(d.records) + d.skipped.total, files[i].records);
        for (int64_t r = 0; r < records_count(d.records); r += 97) {
            Record record;
            assert_ok(records_read(d.records, r, &record, &d.err), &d.err);
            assert_int_equal(record.count, 1);
            assert_true(record.turns[0].prompt[0] && record.turns[0].response[0]);
            if (r == 0 && files[i].first)
                assert_string_equal(record.turns[0].response, files[i].first);
            record_free(&record);
        }
        records_close(d.records);
    }
    Data d = {.options = {.images = "."}};
    snprintf(d.file, sizeof d.file, "%s",
             shared_file("gqa/llava_gqa_testdev_balanced.head300.jsonl"));
    assert_refused(scan(&d), &d.err, "none of its 300 records", "no conversations",
                   "\"question_id\", \"image\", \"text\", \"category\"");
}

/* ---- Problems. ---- */

static void test_skipped(void **state) {
    (void)state;
    enum { LAST = SKIPPED_KINDS - 1 };
    Skipped all = {.total = 0}, other = {.total = 0};
    for (int i = 0; i < 40; i++) {
        char kind[32];
        snprintf(kind, sizeof kind, "kind %d", i);
        skipped_add(&all, kind, "first of %d, at %s", i, "a\nb");
        skipped_add(&all, kind, "second");
    }
    assert_int_equal(all.kind_count, SKIPPED_KINDS);
    assert_int_equal(all.total, 80);
    assert_string_equal(all.kinds[22].first, "first of 22, at a?b");
    assert_int_equal(all.kinds[22].count, 2);
    assert_string_equal(all.kinds[LAST].kind, "other reasons");
    assert_int_equal(all.kinds[LAST].count, 2 * (40 - LAST));
    skipped_add(&other, "kind 3", "third");
    skipped_add(&other, "new", "fourth");
    skipped_merge(&all, &other);
    assert_int_equal(all.total, 82);
    assert_int_equal(all.kinds[3].count, 3);
    assert_int_equal(all.kinds[LAST].count, 2 * (40 - LAST) + 1);
    skipped_merge(&other, &all);
    assert_string_equal(other.kinds[0].first, "third");
    assert_int_equal(other.total, 84);
    /* A long text is cut, but not inside a character. */
    Skipped cut = {.total = 0};
    char text[600];
    for (int i = 0; i < 598; i += 2) memcpy(text + i, "\xC3\xA9", 3);
    skipped_add(&cut, "x", "%s", text);
    skipped_add(&cut, "y", "1%s", text);
    assert_int_equal(strlen(cut.kinds[0].first) % 2, 0);
    assert_int_equal(strlen(cut.kinds[1].first) % 2, 1);
    Error err;
    assert_int_equal(skipped_check(&all, 100, 0.82, &err), 0);
    assert_refused(skipped_check(&all, 100, 0.81, &err), &err, "82 of 100 records", "kind 0: 2",
                   "kind 12", "other");
    assert_refused(skipped_check(&cut, 0, 0, &err), &err, "x: 1", "none may be");
    assert_int_equal(skipped_check(&(Skipped){.total = 0}, 0, 0, &err), 0);
    /* More reasons than samples, and notes, which do not count. */
    Skipped more = {.total = 0}, sum = {.total = 0};
    skipped_note(&more, "a note", "n%d", 1);
    skipped_add(&more, "bad", "b%d", 1);
    skipped_more(&more, "bad", "b%d", 2);
    skipped_more(&more, "worse", "w%d", 1);
    skipped_note(&more, "a note", "n%d", 2);
    skipped_merge(&sum, &more);
    assert_int_equal(sum.total, 1);
    assert_int_equal(sum.kind_count, 3);
    assert_true(sum.kinds[0].note && sum.kinds[0].count == 2 && !sum.kinds[1].note);
    assert_refused(skipped_check(&sum, 10, 0, &err), &err, "1 of 10", "bad: 2 (b1); worse: 1 (w1)");
    assert_null(strstr(err.text, "note"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_large_array), /* first: it measures peak memory */
        cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_long_pieces),
        cmocka_unit_test(test_records_left_out),
        cmocka_unit_test(test_malformed_arrays),
        cmocka_unit_test(test_endless_element),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_mixture),
        cmocka_unit_test(test_many_files),
        cmocka_unit_test(test_changed_files),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_shared_files),
        cmocka_unit_test(test_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
