/* chat.c - the command line of `chat` (apps/chat/chat.h). */
#include <string.h>

#include "apps/commands.h"
#include "apps/chat/chat.h"
#include "apps/cli/report.h"

static const CommandHelp help = {
    .name = "chat",
    .usage = "[options] [IMAGE...]",
    .about =
        "A conversation about an image, or about none: each line is a question, and the turns\n"
        "before it are part of the prompt as far as they fit; it is said how many no longer do.\n"
        "Every image has turns of its own. On a terminal lines are edited and remembered, and\n"
        "each answer is redrawn while it is denoised; Ctrl-C cancels it, Ctrl-D leaves. From a\n"
        "pipe or a file, each question gives one line of output, an empty one if it has no\n"
        "answer: then the exit status is 1. Lines that begin with / are commands: /image FILE,\n"
        "/show, /length N, /save FILE, /clear, /help, /quit. The history is in\n"
        "~/.local/state/easyfirst (or $XDG_STATE_HOME), for the user alone.",
    .examples = "easyfirst chat -m model dog.jpg\n"
                "easyfirst chat -m model dog.jpg cat.jpg\n"
                "easyfirst chat -m model --load dogs.json\n"
                "printf '%s\\n' \"What is this?\" \"What color is it?\" | easyfirst chat dog.jpg",
};

static int read_images(ChatStart *start, int count, char **words) {
    for (int i = 0; i < count; i++)
        if (!strcmp(words[i], "-"))
            return options_wrong(&help, "standard input has the questions: name a file as image");
    start->images = (TextList){.items = (const char **)words, .count = count};
    return -1;
}

int command_chat(int argc, char **argv) {
    CommonOptions common;
    ChatStart start = {.common = &common};
    OptionGroup groups[3] = {
        {.title = "options",
         .options = {{"load", 0, OPTION_TEXT, "FILE", &start.load, "continue what /save saved"},
                     {"context", 0, OPTION_SWITCH, "on|off", &start.context,
                      "earlier turns are part of the prompt (default: with full\n"
                      "attention; block-causal models are not trained with them)",
                      .given = &start.context_given},
                     {"no-history", 0, OPTION_FLAG, NULL, &start.no_history,
                      "remember no lines after the end"}}}};
    common_init(&common);
    common.answer.decode.iterations = 0;
    common_answer_group(&common, &groups[1]);
    model_group(&common.model, &common.device, &common.threads, &groups[2]);
    int first, status = options_read(&help, groups, 3, argc, argv, &first);
    if (status < 0) status = read_images(&start, argc - first, argv + first);
    if (status < 0) status = common_check(&help, &common);
    if (status < 0) {
        Error err;
        bool unanswered;
        int failed = chat_run(&start, &unanswered, &err);
        if (failed) report_failure(&err);
        status = failed || unanswered;
    }
    return status;
}
