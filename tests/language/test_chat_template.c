/* test_chat_template.c - chat templates against what jinja2 makes of the models' own. */
#include "tests/test.h"

#include <jansson.h>

#include "kernels/names.h"
#include "language/chat_template.h"

enum { MESSAGES_MOST = 8 };

static size_t messages_of(const json_t *list, ChatMessage *messages) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *message = json_array_get(list, i);
        messages[i].role = json_string_value(json_object_get(message, "role"));
        messages[i].content = json_string_value(json_object_get(message, "content"));
    }
    return json_array_size(list);
}

static const char *text_in(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static void test_texts(void **state) {
    (void)state;
    json_t *cases = json_load_file("tests/golden/tokenizers/chat.json", 0, NULL), *item;
    size_t i;
    assert_int_equal(json_array_size(cases), 30);
    json_array_foreach(cases, i, item) {
        Error err;
        ChatTemplate kind;
        ChatMessage messages[MESSAGES_MOST];
        char *text;
        size_t count = messages_of(json_object_get(item, "messages"), messages);
        bool open = json_is_true(json_object_get(item, "open"));
        assert_ok(
            chat_template_recognize(&kind, text_in(item, "template"), text_in(item, "begin"), &err),
            &err);
        assert_string_equal(names_get(chat_template_names, (int)kind), text_in(item, "name"));
        assert_ok(chat_template_text(kind, messages, count, open, &text, &err), &err);
        assert_string_equal(text, text_in(item, "text"));
        free(text);
    }
    json_decref(cases);
}

static void write_file(const char *folder, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_folder(void **state) {
    (void)state;
    Error err;
    ChatTemplate kind;
    bool present;
    char folder[256];
    temporary_folder(folder, sizeof folder);
    assert_ok(chat_template_read(&kind, &present, folder, "", &err), &err);
    assert_false(present);
    write_file(folder, "tokenizer_config.json", "{\"chat_template\": null}");
    assert_ok(chat_template_read(&kind, &present, folder, "", &err), &err);
    assert_false(present);
    write_file(folder, "tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"x\"}, {\"name\": "
               "\"default\", \"template\": \"<|im_start|> <|im_end|>\"}]}");
    assert_ok(chat_template_read(&kind, &present, folder, "", &err), &err);
    assert_true(present);
    assert_int_equal(kind, CHAT_CHATML);
    write_file(folder, "chat_template.jinja", "{{ messages }}");
    assert_refused(chat_template_read(&kind, &present, folder, "", &err), &err,
                   "chat_template.jinja", "not known", "llama-3.1");
    temporary_remove(folder);
}

static void test_refused(void **state) {
    (void)state;
    Error err;
    char *text;
    const ChatMessage late[] = {{"user", "a"}, {"system", "b"}}, tool[] = {{"tool", "a"}};
    const ChatMessage twice[] = {{"user", "a"}, {"user", "b"}}, one[] = {{"user", "a"}};
    assert_refused(chat_template_text(CHAT_LLAMA3, late, 0, true, &text, &err), &err, "messages");
    assert_refused(chat_template_text(CHAT_LLAMA3, late, 2, true, &text, &err), &err, "first");
    assert_refused(chat_template_text(CHAT_DREAM, tool, 1, true, &text, &err), &err, "tool");
    assert_refused(chat_template_text(CHAT_LLAMA2, twice, 2, true, &text, &err), &err, "alternate");
    assert_refused(chat_template_text(CHAT_LLAMA2, one, 1, false, &text, &err), &err, "last");
    assert_null(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
