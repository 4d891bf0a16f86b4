/* test_formats.c - files of other programs: a sample of each format, the authors' lines built again from
 * public forms, hostile files, and the table of data/README.md. */
#include "tests/test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "data/formats/format.h"
#include "tests/records_data.h"

/* ---- Three lines of each. ---- */

typedef struct Pair {
    const char *prompt, *answer;
} Pair;

/* Writes the text as a file of this name and expects these records, of `scanned`; then the same from a
 * gzip file. */
static void expect_pairs(Data *d, const char *name, const char *text, int count, int64_t scanned,
                         const Pair *pairs) {
    for (int packed = 0; packed < 2; packed++) {
        write_text(d, name, text);
        if (packed) {
            strcat(d->file, ".gz");
            gzFile file = gzopen(d->file, "wb");
            assert_non_null(file);
            assert_int_equal(gzwrite(file, text, (unsigned)strlen(text)), strlen(text));
            assert_int_equal(gzclose(file), Z_OK);
        }
        Error err;
        assert_ok(records_check(d->file, &d->options, &err), &err);
        assert_ok(scan(d), &d->err);
        assert_int_equal(records_count(d->records), count);
        assert_int_equal(records_scanned(d->records), scanned);
        struct stat info;
        int64_t bytes;
        uint64_t hash;
        records_source_file(d->records, 0, &bytes, &hash);
        assert_int_equal(stat(d->file, &info), 0);
        if (!d->options.prompt.answers) assert_int_equal(bytes, info.st_size);
        for (int i = 0; i < count; i++) expect_turn(d, i, 0, pairs[i].prompt, pairs[i].answer);
    }
}

static void test_tables(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    d.options.prompts_for = "train adapt";
    expect_pairs(&d, "a.csv",
                 "\xEF\xBB\xBFid,Question,Answer\r\n"
                 "1,\"Who, \"\"me\"\"?\",yes\r\n"
                 "2,\"two\nlines\",5\" pipe\r\n"
                 "3,last,\"x\"",
                 3, 3,
                 (Pair[]){{"Who, \"me\"?", "yes"}, {"two\nlines", "5\" pipe"}, {"last", "x"}});
    expect_pairs(&d, "b.tsv",
                 "target\tsource\tscore\nHund\t\"dog\t1\nKatze\tcat\t2\nMaus\tmouse\t\n", 3, 3,
                 (Pair[]){{"\"dog", "Hund"}, {"cat", "Katze"}, {"mouse", "Maus"}});
    expect_pairs(&d, "c.txt", "Hund\tdog\r\nKatze\tcat\r\n\r\nMaus\tmouse", 3, 3,
                 (Pair[]){{"Hund", "dog"}, {"Katze", "cat"}, {"Maus", "mouse"}});
    d.options.prompt.prompt_template = "{source} is ({score}) in {German}: ";
    expect_pairs(&d, "b.tsv",
                 "target\tsource\tscore\nHund\tdog\t1\nKatze\tcat\t2\nMaus\tmouse\t{score}\n", 3, 3,
                 (Pair[]){{"dog is (1) in {German}: ", "Hund"},
                          {"cat is (2) in {German}: ", "Katze"},
                          {"mouse is ({score}) in {German}: ", "Maus"}});
    d.options.prompt.prompt_template = "{nothing}";
    assert_refused(scan(&d), &d.err, "b.tsv", "none of the fields", "{target}");
    data_end(&d);
}

static void test_mmlu(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    const char *front =
        "The following are multiple choice questions (with answers) about high school art. Q: ";
    char prompts[3][300];
    const char *questions[] = {
        "What, then? (A) a (B) b\nc (C) \"q\" (D) d A:", "[Sic] (A) 1 (B) 2 (C) 3 (D) 4 A:",
        "Last (A)   (B) x (C) y (D) z A:"};
    for (int i = 0; i < 3; i++) snprintf(prompts[i], 300, "%s%s", front, questions[i]);
    expect_pairs(
        &d, "high_school_art_test.csv",
        "\"What, then?\",a,\"b\nc\",\"\"\"q\"\"\",d,B\n\"[Sic]\",1,2,3,4,A\nLast, ,x,y,z,D\n", 3, 3,
        (Pair[]){{prompts[0], "B"}, {prompts[1], "A"}, {prompts[2], "D"}});
    d.options.prompt.no_instruction = true;
    assert_ok(scan(&d), &d.err);
    expect_turn(&d, 1, 0, " Q: [Sic] (A) 1 (B) 2 (C) 3 (D) 4 A:", "A");
    d.options.prompt = (PromptOptions){.shots = 1, .demonstrations = d.file};
    assert_ok(scan(&d), &d.err);
    snprintf(
        prompts[0], 300, "%s%s", front,
        "What, then? (A) a (B) b\nc (C) \"q\" (D) d A: B | Q: [Sic] (A) 1 (B) 2 (C) 3 (D) 4 A:");
    expect_turn(&d, 1, 0, prompts[0], "A");
    data_end(&d);
}

static void test_numbers(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    expect_pairs(&d, "gsm.jsonl",
                 "{\"question\": \"How many?\", \"answer\": \"There are 48/2 = <<48/2=24>>24.\\nSo "
                 "24.\\n#### 24\"}\n"
                 "{\"question\": \"Cost?\", \"answer\": \"<<a\\n#### 1,000\"}\r\n"
                 "{\"question\": \"Zero?\", \"answer\": \"#### -1.5\"}\n",
                 3, 3,
                 (Pair[]){{" Question:  How many? Step-by-Step Answer: ",
                           "There are 48/2 = 24.\nSo 24.\nThe answer is 24."},
                          {" Question:  Cost? Step-by-Step Answer: ", "<<a\nThe answer is 1,000."},
                          {" Question:  Zero? Step-by-Step Answer: ", "The answer is -1.5."}});
    write_text(&d, "mgsm_de.tsv", "Wie viele \"Eier\"?\t18\nWie viel?\t5,600\nUnd?\t-3\n");
    assert_ok(scan(&d), &d.err);
    Record record;
    assert_ok(records_read(d.records, 1, &record, &d.err), &d.err);
    assert_string_equal(record.turns[0].prompt, " Frage:  Wie viel? Schritt-für-Schritt-Antwort: ");
    assert_int_equal(strlen(record.turns[0].response), 2 * 60 + 5);
    assert_string_equal(record.turns[0].response + 2 * 60, "5,600");
    record_free(&record);
    /* A demonstration shows the number alone. */
    d.options.prompt = (PromptOptions){.shots = 2, .demonstrations = d.file};
    assert_ok(scan(&d), &d.err);
    assert_ok(records_read(d.records, 2, &record, &d.err), &d.err);
    assert_string_equal(record.turns[0].prompt,
                        " Frage:  Wie viele \"Eier\"? Schritt-für-Schritt-Antwort: 18 "
                        "Frage:  Wie viel? Schritt-für-Schritt-Antwort: 5,600 "
                        "Frage:  Und? Schritt-für-Schritt-Antwort: ");
    record_free(&record);
    data_end(&d);
}

static void test_documents(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    const char *front = "Please answer each of the question according to the given context in";
    char prompts[3][300];
    snprintf(prompts[0], 300, "%s swahili.  context: Hapa [1]. Q: Nini? A:", front);
    snprintf(prompts[1], 300, "%s swahili.  context: Hapa [1]. Q: Nani? A:", front);
    snprintf(prompts[2], 300, "%s english.  context: Other Q: Who? A:", front);
    expect_pairs(&d, "squad",
                 "{\"version\": \"1.1\",\n \"data\": [{\"title\": \"[\", \"paragraphs\": "
                 "[{\"context\": \"Hapa [1].\","
                 " \"qas\": [{\"id\": \"swahili-12-0\", \"question\": \"Nini?\", \"answers\": "
                 "[{\"text\": \"a\"},"
                 " {\"text\": \"b\"}]}, {\"id\": \"swahili-3\", \"question\": \"Nani?\", "
                 "\"answers\": [{\"text\":"
                 " \"c\"}]}]}]}, {\"paragraphs\": [{\"context\": \"Other\", \"qas\": [{\"id\": "
                 "\"5733\", \"question\":"
                 " \"Who?\", \"answers\": [{\"text\": \"d\"}]}, {\"question\": \"None?\", "
                 "\"answers\": []}]}]}]}",
                 3, 4, (Pair[]){{prompts[0], "a"}, {prompts[1], "c"}, {prompts[2], "d"}});
    expect_problem(&d, "no answer", 1, "question 4");
    expect_pairs(&d, "bbh.json",
                 "{\"canary\": \"x\", \"examples\": [{\"input\": \"Which?\\nOptions:\\n(A) "
                 "one\\n(B) two\", \"target\":"
                 " \"(B)\"}, {\"input\": \"True and False is\", \"target\": \"False\"}, "
                 "{\"input\": \"Is it?\\nOptions:\\n"
                 "- Yes\\n- No\", \"target\": \"No\"}, {\"input\": \"W?\\nOptions:\\n(A) o\", "
                 "\"target\": \"o\"}]}",
                 3, 4,
                 (Pair[]){{" Q: Which? (A) one (B) two A:", "B"},
                          {" Q: True and False is A:", "False"},
                          {" Q: Is it?\nOptions:\n- Yes\n- No A:", "No"}});
    expect_problem(&d, "wrong letter", 1, "example 4: \"o\"");
    data_end(&d);
}

static void test_chats(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    const Pair alpaca[] = {{"Add.\n1 and 2", "3"}, {"Say hello.", "Hello!"}, {"Count.", "1\n2"}};
    expect_pairs(&d, "alpaca.json",
                 "[{\"instruction\": \"Add.\", \"input\": \"1 and 2\", \"output\": \"3\"},\n"
                 " {\"instruction\": \"Say hello.\", \"input\": \"\", \"output\": \"Hello!\"},\n"
                 " {\"instruction\": \"Count.\", \"output\": \"1\\n2\"}]",
                 3, 3, alpaca);
    expect_pairs(&d, "chat.jsonl",
                 "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": "
                 "\"assistant\", \"content\":"
                 " \"Hello\"}]}\n{\"messages\": [{\"role\": \"system\", \"content\": \"Be "
                 "kind.\"}, {\"role\": \"user\","
                 " \"content\": [{\"type\": \"text\", \"text\": \"Why?\"}]}, {\"role\": "
                 "\"assistant\", \"content\": \"So.\"},"
                 " {\"role\": \"user\", \"content\": \"And?\"}, {\"role\": \"assistant\", "
                 "\"content\": \"Done.\"}], \"id\": 7}\n"
                 "{\"inputs\": \"mixed\", \"targets\": \"too\"}\n",
                 3, 3, (Pair[]){{"Hi", "Hello"}, {"Why?", "So."}, {"mixed", "too"}});
    expect_record(&d, 1, "7", NULL, 2);
    expect_turn(&d, 1, 1, "And?", "Done.");
    expect_problem(&d, "system prompt", 1, "id 7");
    accept(&d,
           "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}\n"
           "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
           "\"content\": null,"
           " \"tool_calls\": []}]}\n{\"messages\": []}\n{\"messages\": [3]}\n"
           "{\"messages\": [{\"role\": \"robot\", \"content\": \"a\"}]}\n"
           "{\"instruction\": \"a\", \"input\": 7, \"output\": \"b\"}\n"
           "{\"instruction\": \"a\", \"output\": \"b\", \"history\": [[\"c\", \"d\"]]}\n"
           "{\"question\": \"a\", \"answer\": \"b\"}\n"
           "{\"instruction\": \"a\", \"output\": \"b\"}\n",
           1, 9);
    expect_problem(&d, "wrong type", 3, "line 1: message 1");
    expect_problem(&d, "field that is not read", 2, "line 2: message 2 has \"tool_calls\"");
    expect_problem(&d, "no number", 1, "line 8");
    expect_problem(&d, "unknown speaker", 1, "robot");
    data_end(&d);
}

static void test_star_graphs(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    expect_pairs(&d, "stars.txt",
                 "2,8|5,2|5,9|9,3/5,8=5,2,8\n10,11|10,12/10,12=10,12\n0,1|1,2|0,3|3,4/0,4=0,3,4\n",
                 3, 3,
                 (Pair[]){{"2,8|5,2|5,9|9,3/5,8=", "5,2,8"},
                          {"10,11|10,12/10,12=", "10,12"},
                          {"0,1|1,2|0,3|3,4/0,4=", "0,3,4"}});
    accept(&d,
           "2,8|5,2/5,8=5,2,8\n2,8|5,2/5,8=5,8\n2,8|5,2/5,8=2,8\n2,8|5,2/5,8=5,2\n2,8|5,2/5=5,2\n"
           "2,8|5,2/5,8=5,2,8,\n2,8|5,2/5,8=5,2,8\n1,2/1,2=1,2\n3,4/3,4=3,4\n5,6/5,6=5,6\n7,8/"
           "7,8=7,8\n",
           6, 11);
    expect_problem(&d, "not a star graph", 5, "line 2: the path leaves the edges");
    data_end(&d);
}

static void test_parallel(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    char target[700];
    write_text(&d, "a.en", "a dog\r\na \tcat\n\nx\n\n\n");
    snprintf(target, sizeof target, "%s", d.file);
    d.options.prompt = (PromptOptions){.answers = target,
                                       .prompt_template = "German: {source} English: ",
                                       .instruction = "Translate."};
    expect_pairs(&d, "a.de",
                 "\xEF\xBB\xBF"
                 "ein Hund\n[eine] Katze\n\nX\n",
                 3, 3,
                 (Pair[]){{"Translate. German: ein Hund English: ", "a dog"},
                          {"Translate. German: [eine] Katze English: ", "a \tcat"},
                          {"Translate. German: X English: ", "x"}});
    write_text(&d, "a.de", "ein Hund\n\nKatze\nX\n");
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_count(d.records), 2);
    expect_problem(&d, "empty answer", 1, "a.de: line 3");
    expect_problem(&d, "empty prompt", 1, "a.de: line 2");
    write_text(&d, "a.de", "ein Hund\nKatze\nY\nX\nZ\n");
    assert_refused(scan(&d), &d.err, "a.de has more lines than", "line 5");
    write_text(&d, "a.de", "ein Hund\n");
    assert_refused(scan(&d), &d.err, "a.en has more lines than", "line 2");
    d.options.prompt.answers = "nowhere.en";
    assert_refused(scan(&d), &d.err, "nowhere.en", "No such file");
    /* Pairs that look like something else. */
    d.options.prompt = (PromptOptions){.pairs = true};
    expect_pairs(&d, "p", "source\ttarget\n12\t13\n{}\t[]\n", 3, 3,
                 (Pair[]){{"source", "target"}, {"12", "13"}, {"{}", "[]"}});
    data_end(&d);
}

/* ---- Prompts. ---- */

static void test_shots(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    char shots[700];
    write_text(&d, "shots.jsonl",
               "{\"inputs\": \" A: \", \"targets\": \"b\"}\n\n{\"inputs\": \"no targets\"}\n"
               "{\"inputs\": \"C:\", \"targets\": \" d \"}\n");
    snprintf(shots, sizeof shots, "%s", d.file);
    d.options.prompt = (PromptOptions){.demonstrations = shots, .shots = 2};
    expect_pairs(&d, "x.jsonl", "{\"inputs\": \"E:\", \"targets\": \"f\"}\n", 1, 1,
                 (Pair[]){{"A: b C: d E:", "f"}});
    d.options.prompt.instruction = "Do. ";
    expect_pairs(&d, "x.jsonl", "[{\"inputs\": \" E:\", \"targets\": \"f\", \"id\": 9}]", 1, 1,
                 (Pair[]){{"Do.  A: b C: d  E:", "f"}});
    expect_record(&d, 0, "9", NULL, 1);
    d.options.prompt.shots = 3;
    assert_refused(scan(&d), &d.err, "shots.jsonl", "2 demonstrations", "at least 3");
    d.options.prompt.shots = 1;
    refuse(&d, "{" TALK "}\n", "none of its 1 records", "conversation");
    refuse(&d, "Plain text.\n", "plain text, which has no prompts");
    d.options.prompt = (PromptOptions){.no_instruction = true};
    refuse(&d, "{\"inputs\": \"E:\", \"targets\": \"f\"}\n", "no instruction of their own");
    refuse(&d, "Q\t1\nQ\t2\n", "no instruction that could be left out");
    d.options.prompt = (PromptOptions){.prompt_template = "{source}"};
    refuse(&d, "{\"inputs\": \"E:\", \"targets\": \"f\"}\n", "finished prompts", "template");
    refuse(&d, "Q\t1\nQ\t2\n", "MGSM", "template");
    d.options.prompt = (PromptOptions){.instruction = "\xFF"};
    refuse(&d, "{\"inputs\": \"E:\", \"targets\": \"f\"}\n", "not valid UTF-8");
    data_end(&d);
}

/* ---- The authors' lines again. ---- */

/* What is built of a file, or what lies in it. */
static char *built(const char *path, const PromptOptions *options, size_t *size) {
    Prompting prompting;
    FormatFile file;
    Error err;
    assert_ok(prompting_open(&prompting, options, &err), &err);
    const FormatOptions format = {.prompting = &prompting};
    assert_ok(format_file_open(&file, path, &format, &err), &err);
    assert_true(file.built);
    assert_int_equal(file.rejected, 0);
    off_t end = lseek(file.fd, 0, SEEK_END);
    char *bytes = malloc((size_t)end + 1);
    assert_non_null(bytes);
    assert_int_equal(pread(file.fd, bytes, (size_t)end, 0), end);
    bytes[end] = 0;
    *size = (size_t)end;
    close(file.fd);
    prompting_close(&prompting);
    return bytes;
}

static void expect_same(const char *folder, const char *from, const char *to,
                        PromptOptions options) {
    char path[700], want[700];
    size_t size, expected;
    snprintf(path, sizeof path, "%s/%s", folder, from);
    snprintf(want, sizeof want, "%s/%s", folder, to);
    char *bytes = built(path, &options, &size), *lines = file_bytes(want, &expected);
    if (size != expected || memcmp(bytes, lines, size)) fail_msg("%s: not as %s", path, want);
    free(bytes), free(lines);
}

/* Every csv file of the folder; returns how many lines they give. */
static int expect_subjects(const char *folder) {
    DIR *all = opendir(folder);
    int lines = 0;
    assert_non_null(all);
    for (struct dirent *entry; (entry = readdir(all)) != NULL;) {
        char *dot = strstr(entry->d_name, "_val.csv"), to[300], path[700];
        if (!dot) continue;
        snprintf(to, sizeof to, "%.*s_val.jsonl", (int)(dot - entry->d_name), entry->d_name);
        expect_same(folder, entry->d_name, to, (PromptOptions){0});
        snprintf(path, sizeof path, "%s/%s", folder, to);
        char *text = file_bytes(path, NULL);
        for (char *c = text; *c; c++) lines += *c == '\n';
        free(text);
    }
    closedir(all);
    return lines;
}

static int expect_authors(const char *folder) {
    char target[700], shots[700];
    snprintf(target, sizeof target, "%s/valid.en", folder);
    snprintf(shots, sizeof shots, "%s/mgsm_demonstrations.jsonl", folder);
    expect_same(folder, "mgsm_de.tsv", "mgsm_de.jsonl", (PromptOptions){0});
    expect_same(folder, "mgsm_en.tsv", "mgsm_en.jsonl", (PromptOptions){0});
    expect_same(folder, "mgsm_en.tsv", "mgsm_3shot.jsonl",
                (PromptOptions){.shots = 3, .demonstrations = shots});
    expect_same(folder, "tydiqa_english.json", "tydiqa_english.jsonl", (PromptOptions){0});
    expect_same(folder, "tydiqa_finnish.json", "tydiqa_finnish.jsonl", (PromptOptions){0});
    expect_same(folder, "tydiqa_swahili.json", "tydiqa_swahili.jsonl", (PromptOptions){0});
    expect_same(folder, "valid.de", "valid.jsonl",
                (PromptOptions){.answers = target,
                                .instruction = "Translate the sentences into English. ",
                                .prompt_template = "German: {source} English: "});
    return expect_subjects(folder);
}

static void test_authors(void **state) {
    (void)state;
    assert_int_equal(expect_authors("tests/golden/public"), 8);
}

/* All of them: 250 prompts of MGSM, 1,531 of MMLU, 7,283 sentences, ... */
static void test_all_authors(void **state) {
    (void)state;
    char folder[512], command[800];
    if (!shared_file("mgsm/0shot.de.jsonl") || system("python3 -c '' 2>/dev/null")) skip();
    temporary_folder(folder, sizeof folder);
    snprintf(command, sizeof command, "python3 tests/reference/make_public.py ../shared/data %s",
             folder);
    assert_int_equal(system(command), 0);
    assert_int_equal(expect_authors(folder), 1531);
    temporary_remove(folder);
}

/* ---- Hostile files. ---- */

static void test_hostile_tables(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    accept(&d,
           "q,a,b,c,d,A\nq,a,b,c,d,E\nq,a,b,c,d,AB\nq,a,b,c,B\nq,a,b,c,d,\nx,\"a\"b,b,c,d,A\nq,a,"
           "\xFF,c,d,B\n"
           "r,1,2,3,4,C\nr,1,2,3,4,D\nr,1,2,3,4,C\nr,1,2,3,4,D\nr,1,2,3,4,C\nr,1,2,3,4,D\n",
           7, 13);
    expect_problem(&d, "wrong letter", 3, "line 2: \"E\"");
    expect_problem(&d, "missing columns", 1, "line 4: 5 columns");
    expect_problem(&d, "malformed row", 1, "line 6: text after a closing quote");
    expect_problem(&d, "not UTF-8", 1, "line 7");
    accept(&d, "question,answer\na,b\nc\nd,e,f\ng,\n\"h,i\nj,k\n", 1, 5);
    expect_problem(&d, "missing columns", 2, "line 3: 1 columns, but the header has 2");
    expect_problem(&d, "empty answer", 1, "line 5");
    expect_problem(&d, "malformed row", 1, "line 6: a quote that is not closed");
    refuse(&d, "question,answer,target\na,b,c\n", "several of its columns could be the answer");
    d.options.prompt.prompt_template = "{x}";
    refuse(&d, "x,x,answer\na,b,c\n", "two columns are named \"x\"");
    d.options.prompt.prompt_template = NULL;
    refuse(&d, "question,answer\n", "no records");
    refuse(&d, "question,answer\n,\n", "none of its records can be used", "empty answer");
    write_bytes(&d, "data", "a\tb\0c\nd\te\nf\tg\n", 15);
    d.options.prompts_for = "train adapt";
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_count(d.records), 2);
    expect_problem(&d, "NUL byte", 1, "line 1");
    refuse(&d, "Some text,\nwithout tabs.\n", "plain text", "MMLU", "parallel files", "star graphs",
           ".gz");
    write_text(&d, "t.csv", "colour,number\nred,1\n");
    assert_refused(scan(&d), &d.err, "t.csv", "without known columns", "question");
    /* Text with a tab in some lines is text, where text is wanted. */
    d.options.prompts_for = NULL;
    accept(&d, "one\ttwo\n\nthree\n\nfour\tfive\n", 3, 3);
    expect_turn(&d, 0, 0, "", "one\ttwo");
    data_end(&d);
}

/* A row of more than 16 MiB, 65 fields, and a line of quotes. */
static void test_huge_rows(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    enum { LONG = 17 << 20 };
    char *text = malloc(LONG + 1000), *p = text + sprintf(text, "question,answer\nx,");
    assert_non_null(text);
    memset(p, 'y', LONG), p += LONG;
    p += sprintf(p, "\nz,\"");
    for (int i = 0; i < 101; i++) *p++ = '"';
    p += sprintf(p, "\n");
    for (int i = 0; i < 70; i++) p += sprintf(p, "f,");
    strcpy(p, "f\nlast,one\n");
    accept(&d, text, 2, 4);
    free(text);
    expect_turn(&d, 1, 0, "last", "one");
    expect_problem(&d, "malformed row", 2, "line 2: longer than 16 MiB");
    data_end(&d);
}

static void write_packed(Data *d, const void *bytes, size_t size, bool append) {
    gzFile file = gzopen(d->file, append ? "ab" : "wb9");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, bytes, (unsigned)size), size);
    assert_int_equal(gzclose(file), Z_OK);
}

static void test_gzip(void **state) {
    (void)state;
    Data d;
    data_begin(&d);
    static const char one[] = "{\"inputs\": \"a\", \"targets\": \"b\"}\n",
                      two[] = "{\"inputs\": \"c\", \"targets\": \"d\"}\n";
    snprintf(d.file, sizeof d.file, "%s/data.gz", d.folder);
    write_packed(&d, one, sizeof one - 1, false);
    write_packed(&d, two, sizeof two - 1, true); /* two members */
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_count(d.records), 2);
    expect_turn(&d, 1, 0, "c", "d");
    size_t size;
    char *bytes = file_bytes(d.file, &size);
    write_bytes(&d, "cut", bytes, size - 5);
    assert_refused(scan(&d), &d.err, "cut", "truncated gzip");
    bytes[size - 6] ^= 1; /* the checksum */
    write_bytes(&d, "wrong", bytes, size);
    assert_refused(scan(&d), &d.err, "wrong", "damaged gzip", "check");
    free(bytes);
    /* gzip in gzip. */
    snprintf(d.file, sizeof d.file, "%s/data.gz", d.folder);
    bytes = file_bytes(d.file, &size);
    snprintf(d.file, sizeof d.file, "%s/twice.gz", d.folder);
    write_packed(&d, bytes, size, false);
    free(bytes);
    assert_refused(scan(&d), &d.err, "twice.gz", "gzip-compressed");
    /* A bomb. */
    enum { ZEROS = 80 << 20 };
    snprintf(d.file, sizeof d.file, "%s/bomb.gz", d.folder);
    bytes = calloc(ZEROS, 1);
    assert_non_null(bytes);
    write_packed(&d, bytes, ZEROS, false);
    free(bytes);
    assert_refused(scan(&d), &d.err, "bomb.gz", "200 times its size");
    data_end(&d);
}

/* A mixture of more compressed files than may be open at once. */
static void test_many_files(void **state) {
    (void)state;
    enum { FILES = 140 };
    Data d;
    data_begin(&d);
    char ratio[FILES * 24] = "{", *p = ratio + 1, line[100];
    for (int i = 0; i < FILES; i++) {
        int size = snprintf(line, sizeof line,
                            i % 2 ? "question,answer\n\"q, %d\",a%d\n"
                                  : "{\"inputs\": \"q, %d\", \"targets\": \"a%d\"}\n",
                            i, i);
        snprintf(d.file, sizeof d.file, "%s/%03d.csv.gz", d.folder, i);
        write_packed(&d, line, (size_t)size, false);
        p += sprintf(p, "%s\"%03d.csv.gz\": 1", i ? "," : "", i);
    }
    strcpy(p, "}");
    write_text(&d, "ratio.json", ratio);
    snprintf(d.file, sizeof d.file, "%s", d.folder);
    assert_ok(scan(&d), &d.err);
    assert_int_equal(records_count(d.records), FILES);
    for (int i = 0; i < FILES; i++) {
        char prompt[20], answer[20];
        snprintf(prompt, sizeof prompt, "q, %d", i), snprintf(answer, sizeof answer, "a%d", i);
        expect_turn(&d, i, 0, prompt, answer);
    }
    data_end(&d);
}

/* ---- The manual. ---- */

static void test_readme(void **state) {
    (void)state;
    char *text = file_bytes("data/README.md", NULL), row[200];
    char *begin = strstr(text, "## Files of other programs"),
         *end = begin ? strstr(begin + 3, "\n## ") : NULL;
    assert_non_null(begin);
    if (end) *end = 0;
    int rows = 0, known = 0;
    for (char *at = begin; (at = strstr(at, "\n| ")) != NULL; at++) rows++;
    for (int i = 0; formats[i].name; i++, known++) {
        snprintf(row, sizeof row, "\n| %s |", formats[i].name);
        if (!strstr(begin, row)) fail_msg("data/README.md has no row \"%s\"", formats[i].name);
    }
    for (int i = 0; object_formats[i].name; i++, known++) {
        snprintf(row, sizeof row, "\n| %s |", object_formats[i].name);
        if (!strstr(begin, row))
            fail_msg("data/README.md has no row \"%s\"", object_formats[i].name);
        assert_non_null(strstr(formats_list(), object_formats[i].name));
    }
    assert_int_equal(rows, known + 1); /* and the table's head */
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),         cmocka_unit_test(test_mmlu),
        cmocka_unit_test(test_numbers),        cmocka_unit_test(test_documents),
        cmocka_unit_test(test_chats),          cmocka_unit_test(test_star_graphs),
        cmocka_unit_test(test_parallel),       cmocka_unit_test(test_shots),
        cmocka_unit_test(test_authors),        cmocka_unit_test(test_all_authors),
        cmocka_unit_test(test_hostile_tables), cmocka_unit_test(test_huge_rows),
        cmocka_unit_test(test_gzip),           cmocka_unit_test(test_many_files),
        cmocka_unit_test(test_readme),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
