/* texts.c - many requests in one call, of which some cannot be answered: texts MODEL IMAGE TEXT...
 * asks every TEXT about the image, and translates it from German; prints an answer, or why there is
 * none, a line. */
#include <easyfirst.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    ef_error err;
    ef_model *model = NULL;
    ef_image *image = NULL;
    ef_answers *answers = NULL;
    size_t count = 0;
    if (argc < 4) return fprintf(stderr, "usage: texts MODEL IMAGE TEXT...\n"), 2;
    ef_request *requests = calloc(2 * (size_t)argc, sizeof *requests);
    if (!requests) return 1;
    int failed = ef_model_open(argv[1], NULL, &model, &err) || ef_image_open(argv[2], &image, &err);
    for (int i = 3; i < argc; i++) {
        requests[count++] = (ef_request){.task = EF_ASK, .text = argv[i], .image = image};
        requests[count++] =
            (ef_request){.task = EF_TRANSLATE, .text = argv[i], .from = "de", .to = "English"};
    }
    failed = failed || ef_answer(model, requests, count, NULL, &answers, &err);
    if (failed) fprintf(stderr, "%s\n", err.text);
    for (size_t i = 0; i < ef_answers_count(answers); i++) {
        const char *text = ef_answer_text(answers, i);
        printf("%s\n", text ? text : ef_answer_error(answers, i));
    }
    ef_answers_close(answers);
    ef_image_close(image);
    ef_model_close(model);
    free(requests);
    return failed;
}
