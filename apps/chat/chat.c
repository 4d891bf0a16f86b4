/* chat.c - see chat.h. Answers go to standard output, all else to standard error. */
#include "apps/chat/chat.h"

#include <ctype.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "apps/chat/input.h"
#include "apps/chat/live.h"
#include "apps/chat/talk.h"
#include "apps/cli/library.h"
#include "apps/cli/report.h"
#include "apps/show/one.h"
#include "apps/trace/report_json.h"
#include "kernels/nearest_word.h"
#include "projector/easyfirst_private.h"

typedef struct Chat {
    CommonOptions *common;
    bool context, failed, quit;
    ef_model *model;
    ef_options options;
    char strategy[LIBRARY_STRATEGY]; /* the options' */
    double threshold;                /* of the probability of sure answers */
    Talks talks;
    ChatInput *input;
    StepTraces last; /* how the last answer was filled in; count 0: there is none */
    bool last_whole; /* it can be shown */
    Live *live;      /* while an answer is drawn */
    Timings timings;
} Chat;

static Talk *current(const Chat *chat) {
    return &chat->talks.items[chat->talks.current];
}

/* People read the message; a question of a script that fails makes the program fail, too. */
static void complain(Chat *chat, const Error *why) {
    report_error("%s", why->text);
    chat->failed |= !chat_input_typed(chat->input);
}

/* ---- Answering. ---- */

static void on_step(void *user, const ef_step *step) {
    Chat *chat = user;
    step_traces_step(&chat->last, step);
    if (chat->live) live_step(chat->live, step);
}

/* Of a terminal that is not drawn on. */
static ef_cancellation *interrupted;

static void on_interrupt(int number) {
    (void)number;
    ef_cancel(interrupted);
}

static Asked chat_asked(const Chat *chat, const char *text) {
    const Talk *talk = current(chat);
    return (Asked){.image = talk->path,
                   .text = text,
                   .text_key = talk->path ? "question" : "prompt",
                   .threshold = talk->path ? &chat->threshold : NULL};
}

static ef_request chat_request(const Chat *chat, const char *text) {
    const Talk *talk = current(chat);
    return (ef_request){.task = talk->image ? EF_ASK : EF_COMPLETE,
                        .text = text,
                        .image = talk->image,
                        .length = chat->common->length,
                        .turns = chat->context ? talk->turns : NULL,
                        .turn_count = chat->context ? talk->count : 0};
}

/* Computes while the answer is drawn, where that is possible; Ctrl-C cancels it if it is typed. */
static int compute(Chat *chat, const ef_request *request, ef_answers **answers, Error *err) {
    ef_options options = chat->options;
    Live live;
    const bool typed = chat_input_typed(chat->input);
    const bool drawn = typed && terminal_usable() && !chat->common->json;
    struct sigaction before, action = {.sa_handler = on_interrupt};
    *answers = NULL;
    TRY(ef_cancellation_new(&options.cancellation, library_error(err)));
    options.on_step = on_step, options.user = chat;
    int status = drawn ? live_begin(&live, options.cancellation, err) : 0;
    if (status == 0) {
        chat->live = drawn ? &live : NULL;
        interrupted = options.cancellation;
        if (typed && !drawn) sigaction(SIGINT, &action, &before);
        status = ef_answer(chat->model, request, 1, &options, answers, library_error(err));
        if (typed && !drawn) sigaction(SIGINT, &before, NULL);
        if (drawn) live_end(&live);
        chat->live = NULL;
    }
    ef_cancellation_close(options.cancellation);
    return status;
}

static int print_answer(Chat *chat, const char *text, const ef_answers *answers, Error *err) {
    const char *answer = ef_answer_text(answers, 0);
    if (chat->common->json) {
        const Asked asked = chat_asked(chat, text);
        return report_json(&asked, answers, 0, &chat->common->answer.decode, NULL, err);
    }
    if (current(chat)->path && ef_answer_probability(answers, 0) < chat->threshold)
        fputs(answer[0] ? "not sure; perhaps: " : "not sure", stdout);
    report_field(stdout, answer);
    putchar('\n');
    return 0;
}

/* Adds the turn; tells how many of the earlier ones do not fit when more of them do not. */
static int keep_turn(Chat *chat, const char *text, const ef_answers *answers, Error *err) {
    Talk *talk = current(chat);
    const char *answer = ef_answer_text(answers, 0);
    const int dropped = ef_answer_dropped_turns(answers, 0);
    if (dropped > talk->told)
        report_error("the first %d of %zu earlier turns no longer fit: the model does not read "
                     "them (/clear forgets all)",
                     dropped, talk->count);
    if (dropped > talk->told) talk->told = dropped;
    if (!answer[strspn(answer, " ")]) {
        if (chat->context) report_error("the answer is empty: it does not become a turn");
        return 0;
    }
    return talk_add(talk, text, answer, err);
}

/* A question without an answer: an empty line where lines are counted. */
static int unanswered(Chat *chat, const char *text, const Error *why, Error *err) {
    const Asked asked = chat_asked(chat, text);
    complain(chat, why);
    if (chat->common->json) return report_json_none(&asked, why->text, err);
    if (!chat_input_typed(chat->input)) putchar('\n');
    return 0;
}

static int answered(Chat *chat, const char *text, const ef_answers *answers, Error *err) {
    timings_add_work(&chat->timings, ef_answers_work(answers));
    const char *error = ef_answer_error(answers, 0);
    if (error) {
        Error why;
        error_write(&why, "%s", error);
        return unanswered(chat, text, &why, err);
    }
    if (chat->last.failed) return error_set(err, "%s", chat->last.error.text);
    TRY(step_traces_finish(&chat->last, answers, 0, err));
    chat->last_whole = true;
    TRY(print_answer(chat, text, answers, err));
    return keep_turn(chat, text, answers, err);
}

static int ask(Chat *chat, const char *text, Error *err) {
    const ef_request request = chat_request(chat, text);
    const Asked asked = chat_asked(chat, text);
    ef_answers *answers;
    Error why;
    step_traces_free(&chat->last);
    chat->last_whole = false;
    TRY(step_traces_open(&chat->last, 1, err));
    TRY(step_traces_add(&chat->last, &asked, &chat->common->answer.decode, err));
    if (compute(chat, &request, &answers, &why)) {
        if (why.code != ERROR_CANCELLED) return error_set(err, "%s", why.text);
        error_write(&why, "cancelled");
        return unanswered(chat, text, &why, err);
    }
    int status = answered(chat, text, answers, err);
    ef_answers_close(answers);
    return status ? status : report_flush(err);
}

/* ---- Commands. Their failures are said, and the conversation continues. ---- */

typedef int (*ChatCommand)(Chat *chat, const char *words, Error *why);

static int check_model(const Chat *chat, int length, bool image, Error *err) {
    return ef_check_task(chat->model, image ? EF_ASK : EF_COMPLETE, length, library_error(err));
}

static void list_images(const Chat *chat) {
    for (size_t i = 0; i < chat->talks.count; i++) {
        const Talk *talk = &chat->talks.items[i];
        report_print(stderr, "%c %zu  %s, %zu turns\n", i == chat->talks.current ? '*' : ' ', i + 1,
                     talk->path ? talk->path : "no image", talk->count);
    }
}

/* A number of the list, or -1. */
static int64_t listed(const Chat *chat, const char *words) {
    char *end;
    long number = strtol(words, &end, 10);
    return *end || number < 1 || (size_t)number > chat->talks.count ? -1 : number - 1;
}

static int command_image(Chat *chat, const char *words, Error *why) {
    int64_t number = listed(chat, words);
    if (!words[0]) {
        list_images(chat);
        return 0;
    }
    if (number >= 0) {
        chat->talks.current = (size_t)number;
    } else {
        TRY(check_model(chat, chat->common->length, true, why));
        TRY(talks_choose(&chat->talks, chat->model, words, why));
    }
    if (chat_input_typed(chat->input)) list_images(chat);
    return 0;
}

static int command_show(Chat *chat, const char *words, Error *why) {
    const ShowWay way = {.speed = SHOW_SPEED};
    bool quit;
    if (words[0]) return error_set(why, "/show takes nothing: it shows the last answer");
    if (!chat->last_whole) return error_set(why, "/show: there is no answer yet");
    return show_again(&chat->last.items[0], &way, &quit, why);
}

static int command_length(Chat *chat, const char *words, Error *why) {
    char *end;
    long length = strtol(words, &end, 10);
    if (!words[0]) {
        if (chat->common->length)
            fprintf(stderr, "%d tokens\n", chat->common->length);
        else
            fputs("predicted\n", stderr);
        return 0;
    }
    if (*end || length < 0 || length > 1000000)
        return error_set(why,
                         "/length takes a number of tokens, or 0 for the predicted length, not "
                         "\"%s\"",
                         words);
    TRY(check_model(chat, (int)length, current(chat)->path != NULL, why));
    chat->common->length = (int)length;
    return 0;
}

static int command_save(Chat *chat, const char *words, Error *why) {
    if (!words[0]) return error_set(why, "/save takes the name of a file");
    TRY(talks_save(&chat->talks, chat->common->model.folder, words, why));
    report_print(stderr, "saved: %s\n", words);
    return 0;
}

static int command_clear(Chat *chat, const char *words, Error *why) {
    if (words[0]) return error_set(why, "/clear takes nothing: it forgets the turns");
    talk_clear(current(chat));
    return 0;
}

static int command_quit(Chat *chat, const char *words, Error *why) {
    if (words[0]) return error_set(why, "/quit takes nothing");
    chat->quit = true;
    return 0;
}

static int command_help(Chat *chat, const char *words, Error *why);

static const struct {
    const char *name, *argument, *about;
    ChatCommand run;
} commands[] = {
    {"/image", "FILE",
     "talk about another image, with turns of its own; by its number,\n"
     "                 too; alone: list them",
     command_image},
    {"/show", "", "how the last answer was filled in, step by step", command_show},
    {"/length", "N", "tokens of an answer; 0: predicted", command_length},
    {"/save", "FILE", "save all turns; `easyfirst chat --load FILE` continues", command_save},
    {"/clear", "", "forget the turns about this image", command_clear},
    {"/help", "", "this text", command_help},
    {"/quit", "", "leave, as Ctrl-D does; Ctrl-C cancels an answer", command_quit},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static int command_help(Chat *chat, const char *words, Error *why) {
    (void)chat;
    if (words[0]) return error_set(why, "/help takes nothing");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(stderr, "  %-8s %-5s %s\n", commands[i].name, commands[i].argument,
                commands[i].about);
    fputs("  A question that begins with / has a space in front of it.\n", stderr);
    return 0;
}

static int unknown(const char *name, size_t size, Error *why) {
    const char *names[COMMANDS + 1] = {NULL};
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)(size < 40 ? size : 40), name);
    for (int i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
    const char *near = nearest_word(word, names);
    return error_set(why,
                     "there is no command %s%s%s%s; /help lists them (a question that begins "
                     "with / has a space in front of it)",
                     word, near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
}

static int run_command(Chat *chat, char *line, Error *why) {
    size_t size = strcspn(line, " \t"), end = strlen(line);
    while (end > size && isspace((unsigned char)line[end - 1])) line[--end] = 0;
    const char *words = line + size + strspn(line + size, " \t");
    for (int i = 0; i < COMMANDS; i++)
        if (strlen(commands[i].name) == size && !strncmp(line, commands[i].name, size))
            return commands[i].run(chat, words, why);
    return unknown(line, size, why);
}

/* ---- Lines. ---- */

static int take_line(Chat *chat, char *line, const Error *bad, Error *err) {
    const char *text = line + strspn(line, " \t\r\n\v\f");
    Error why;
    if (bad->text[0]) return unanswered(chat, "", bad, err);
    if (!*text) return 0;
    if (line[0] != '/') return ask(chat, text, err);
    if (run_command(chat, line, &why)) complain(chat, &why);
    return report_flush(err);
}

static int take_lines(Chat *chat, Error *err) {
    ChatEvent event = CHAT_LINE;
    while (!chat->quit && event != CHAT_END) {
        char *line;
        Error bad;
        TRY(chat_input_next(chat->input, &event, &line, &bad, err));
        int status = event == CHAT_LINE ? take_line(chat, line, &bad, err) : 0;
        free(line);
        if (status) return status;
    }
    return 0;
}

/* ---- The whole. ---- */

/* The first image of the command line is talked about first; after --load, the loaded one unless
 * there are some. */
static int open_talks(Chat *chat, const ChatStart *start, Error *err) {
    size_t first = 0;
    if (start->load) TRY(talks_load(&chat->talks, chat->model, start->load, err));
    for (int i = 0; i < start->images.count; i++) {
        TRY(talks_choose(&chat->talks, chat->model, start->images.items[i], err));
        if (i == 0) first = chat->talks.current;
    }
    if (start->images.count) chat->talks.current = first;
    if (!chat->talks.count) TRY(talks_choose(&chat->talks, chat->model, NULL, err));
    return check_model(chat, chat->common->length, current(chat)->path != NULL, err);
}

static int open_chat(Chat *chat, const ChatStart *start, Error *err) {
    Error note;
    TRY(library_open(&chat->model, chat->common, &chat->timings, err));
    chat->options = library_options(chat->common, chat->strategy);
    chat->threshold = ef_model_sure_threshold(chat->model);
    const bool causal = chat->model->model.parts.attention == ATTENTION_BLOCK_CAUSAL;
    chat->context = start->context_given ? start->context : !causal;
    TRY(open_talks(chat, start, err));
    TRY(chat_input_open(&chat->input, !start->no_history, &note, err));
    if (note.text[0]) report_error("%s", note.text);
    if (!chat_input_typed(chat->input) || chat->common->quiet) return 0;
    if (start->images.count + (int)chat->talks.count > 1) list_images(chat);
    if (!chat->context && !start->context_given)
        fputs("Each question is answered by itself: block-causal models are not trained with "
              "earlier turns (--context on).\n",
              stderr);
    fputs("/help lists commands; Ctrl-D leaves.\n", stderr);
    return 0;
}

int chat_run(const ChatStart *start, bool *failed, Error *err) {
    Chat chat = {.common = start->common};
    int status = open_chat(&chat, start, err);
    if (status == 0) status = take_lines(&chat, err);
    if (status == 0 && !chat.common->quiet && chat.timings.answers)
        timings_print_model(&chat.timings, chat.model, &chat.common->answer.decode);
    const int signal_number = chat_input_signal(chat.input);
    *failed = chat.failed;
    chat_input_close(chat.input);
    step_traces_free(&chat.last);
    talks_free(&chat.talks);
    ef_model_close(chat.model);
    if (signal_number) raise(signal_number);
    return status;
}
