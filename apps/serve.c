/* serve.c - answers over HTTP: OpenAI's API, and a page. The server is in apps/serve/. */
#include <stdlib.h>
#include <string.h>

#include "apps/cli/report.h"
#include "apps/commands.h"
#include "apps/serve/serve.h"

static const CommandHelp help = {
    .name = "serve",
    .usage = "[options]",
    .about = "Serves a page to ask about images, and OpenAI's API: /v1/chat/completions,\n"
             "/v1/completions, /v1/models; /health; /metrics for Prometheus. Listens on this\n"
             "machine alone (127.0.0.1:8080); another address needs a key, which clients send as\n"
             "\"Authorization: Bearer KEY\". The options of answers are the defaults of requests.\n"
             "Each request is a line on standard error. SIGINT or SIGTERM answers what was asked\n"
             "and ends, a second one ends at once; SIGHUP reloads the model.",
    .examples = "easyfirst serve -m model\n"
                "easyfirst serve -m model --port 9000 --cors https://example.org\n"
                "easyfirst serve -m model --host 0.0.0.0 --api-key-file key.txt",
};

#ifdef EASYFIRST_MICROHTTPD

enum { KEY_MOST = 4096 };

/* The first line of a file, the caller's to free. */
static char *key_read(const char *path, Error *err) {
    char line[KEY_MOST + 2];
    FILE *file = fopen(path, "re");
    bool read = file && fgets(line, sizeof line, file);
    if (!read) error_set(err, "%s: %s", path, file ? "the file has no key" : "cannot be read: %m");
    if (!file) error_set(err, "%s: %m", path);
    if (file) fclose(file);
    if (!read) return NULL;
    line[strcspn(line, "\r\n")] = 0;
    char *key = strdup(line);
    if (!key) error_set(err, "out of memory for a key");
    return key;
}

/* From the file, the option or the environment. */
static int key_take(ServeSettings *s, const char *file, char **key, Error *err) {
    const char *variable = getenv("EASYFIRST_API_KEY");
    *key = file ? key_read(file, err) : NULL;
    if (file && !*key) return -1;
    if (*key) s->key = *key;
    if (!s->key && variable && variable[0]) s->key = variable;
    for (const char *c = s->key; c && *c; c++)
        if (*c <= ' ' || *c > '~')
            return error_set(err, "the API key has a character that is not printable ASCII");
    if (s->key && !s->key[0]) return error_set(err, "the API key is empty");
    return 0;
}

static int settings_check(const ServeSettings *s, const char *file) {
    const AnswerOptions *a = &s->common.answer;
    if (s->common.json)
        return options_wrong(&help, "--json belongs to other commands: the API speaks JSON");
    if (a->no_kv_cache) return options_wrong(&help, "--no-kv-cache does not work with serve");
    if (s->key && file) return options_wrong(&help, "--api-key and --api-key-file: give one");
    for (int i = 0; i < s->origins.count; i++)
        if (!strstr(s->origins.items[i], "://"))
            return options_wrong(&help,
                                 "--cors takes an origin, as https://example.org, not \"%s\"",
                                 s->origins.items[i]);
    return -1;
}

static int run(ServeSettings *s, const char *file) {
    Error err;
    char *key = NULL;
    int status = key_take(s, file, &key, &err);
    if (status == 0) status = serve(s, &err);
    if (status) report_failure(&err);
    free(key);
    return status ? 1 : 0;
}

#else

static int settings_check(const ServeSettings *s, const char *file) {
    (void)s, (void)file;
    return -1;
}

static int run(ServeSettings *s, const char *file) {
    (void)s, (void)file;
    report_error("this build has no server: libmicrohttpd was missing; install it (Debian: "
                 "libmicrohttpd-dev) and build again");
    return 1;
}

#endif

static ServeSettings settings_default(void) {
    return (ServeSettings){.host = "127.0.0.1",
                           .port = SERVE_PORT,
                           .body_mb = 32,
                           .megapixels = IMAGE_MAX_PIXELS / 1000000,
                           .seconds = 120,
                           .transfer_seconds = 60,
                           .connections = 256,
                           .client_connections = 128,
                           .queue = 256,
                           .client_queue = 64,
                           .image_cache_mb = 256};
}

static void address_group(ServeSettings *s, const char **key_file, OptionGroup *group) {
    *group =
        (OptionGroup){.title = "address and access",
                      .options = {{"host", 0, OPTION_TEXT, "ADDRESS", &s->host,
                                   "address to listen on (default 127.0.0.1); all but this\n"
                                   "machine's own need a key"},
                                  {"port", 'p', OPTION_INTEGER, "N", &s->port,
                                   "port to listen on (default 8080); 0: a free one", 0, 65535},
                                  {"api-key", 0, OPTION_TEXT, "KEY", &s->key,
                                   "the key that clients send; other users of this machine see\n"
                                   "it: better in a file, or as $EASYFIRST_API_KEY"},
                                  {"api-key-file", 0, OPTION_TEXT, "FILE", key_file,
                                   "a file whose first line is the key"},
                                  {"cors", 0, OPTION_LIST, "ORIGIN", &s->origins,
                                   "pages of this origin may use the API, as https://example.org"},
                                  {"host-name", 0, OPTION_LIST, "NAME", &s->host_names,
                                   "another name of this server, as clients call it"},
                                  {"model-name", 0, OPTION_TEXT, "NAME", &s->model_id,
                                   "as the API calls the model (default: the folder's name)"}}};
}

static void limits_group(ServeSettings *s, OptionGroup *group) {
    *group = (OptionGroup){
        .title = "limits",
        .options = {{"body-mb", 0, OPTION_INTEGER, "N", &s->body_mb,
                     "MiB of a request (default 32)", 1, 1024},
                    {"megapixels", 0, OPTION_INTEGER, "N", &s->megapixels,
                     "of an image (default 89); a JPEG may have four times as\n"
                     "many, and is decoded at half its size",
                     1, IMAGE_MAX_PIXELS / 1000000},
                    {"timeout", 0, OPTION_INTEGER, "SECONDS", &s->seconds,
                     "until an answer (default 120)", 1, 86400},
                    {"transfer-timeout", 0, OPTION_INTEGER, "SECONDS", &s->transfer_seconds,
                     "for reading a request, and for writing a reply (default 60)", 1, 86400},
                    {"connections", 0, OPTION_INTEGER, "N", &s->connections,
                     "open at once (default 256)", 1, 10000},
                    {"client-connections", 0, OPTION_INTEGER, "N", &s->client_connections,
                     "of one address (default 128)", 1, 10000},
                    {"queue", 0, OPTION_INTEGER, "N", &s->queue,
                     "requests that wait or are answered (default 256)", 1, 100000},
                    {"client-queue", 0, OPTION_INTEGER, "N", &s->client_queue,
                     "of one address (default 64)", 1, 100000},
                    {"image-cache-mb", 0, OPTION_INTEGER, "N", &s->image_cache_mb,
                     "MiB of encoded images that are kept (default 256)", 1, 1 << 20}}};
}

/* Here --adapter may be given several times, and with names. */
static void adapter_option(ServeSettings *s, OptionGroup *group) {
    for (int i = 0; i < option_count(group); i++) {
        Option *o = &group->options[i];
        if (strcmp(o->name, "adapter") != 0) continue;
        o->kind = OPTION_LIST, o->target = &s->adapters, o->argument = "[NAME=]FOLDER";
        o->help = "a LoRA adapter in PEFT's format, merged into the weights; with a\n"
                  "name, a further model, which requests choose by it (repeatable)";
    }
}

/* Those without a name are the model's own, of which there is one. */
static int adapters_take(ServeSettings *s) {
    int named = 0;
    for (int i = 0; i < s->adapters.count; i++) {
        const char *adapter = s->adapters.items[i];
        if (adapter_name_size(adapter)) {
            s->adapters.items[named++] = adapter;
            continue;
        }
        if (s->common.model.adapter)
            return options_wrong(&help,
                                 "--adapter: %s and %s have no names: name all but one, as "
                                 "in NAME=FOLDER",
                                 s->common.model.adapter, adapter);
        s->common.model.adapter = adapter;
    }
    s->adapters.count = named;
    if (named < BACKENDS_MOST) return -1;
    return options_wrong(&help, "--adapter: %d names, at most %d", named, BACKENDS_MOST - 1);
}

int command_serve(int argc, char **argv) {
    ServeSettings s = settings_default();
    const char *key_file = NULL;
    OptionGroup groups[4];
    int first;
    common_init(&s.common);
    s.common.answer.decode.iterations = 0;
    address_group(&s, &key_file, &groups[0]);
    limits_group(&s, &groups[1]);
    common_answer_group(&s.common, &groups[2]);
    model_group(&s.common.model, &s.common.device, &s.common.threads, &groups[3]);
    adapter_option(&s, &groups[3]);
    int status = options_read(&help, groups, 4, argc, argv, &first);
    if (status < 0 && first < argc)
        status = options_wrong(&help, "\"%s\": serve takes options only", argv[first]);
    if (status < 0) status = adapters_take(&s);
    if (status < 0) status = settings_check(&s, key_file);
    if (status < 0) status = common_check(&help, &s.common);
    if (status < 0) status = run(&s, key_file);
    free(s.origins.items), free(s.host_names.items), free(s.adapters.items);
    return status;
}
