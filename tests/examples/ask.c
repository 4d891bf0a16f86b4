/* ask.c - asks a model a question about an image: ask MODEL IMAGE QUESTION */
#include <easyfirst.h>
#include <stdio.h>

int main(int argc, char **argv) {
    ef_error err;
    ef_model *model = NULL;
    ef_image *image = NULL;
    ef_answers *answers = NULL;
    if (argc != 4) return fprintf(stderr, "usage: ask MODEL IMAGE QUESTION\n"), 2;
    int failed = ef_model_open(argv[1], NULL, &model, &err) ||
                 ef_image_open(argv[2], &image, &err) ||
                 ef_ask(model, image, argv[3], NULL, &answers, &err);
    if (failed)
        fprintf(stderr, "%s\n", err.text);
    else
        puts(ef_answer_text(answers, 0));
    ef_answers_close(answers);
    ef_image_close(image);
    ef_model_close(model);
    return failed;
}
