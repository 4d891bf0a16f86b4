// steps.cc - asks a question and prints each denoising step as it happens, then the answer; the
// call is cancelled after step LAST where that is given: steps MODEL IMAGE QUESTION [LAST]
#include <easyfirst.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

template <typename T, void (*close)(T *)> struct Closer {
    void operator()(T *object) const {
        close(object);
    }
};
template <typename T, void (*close)(T *)> using Owned = std::unique_ptr<T, Closer<T, close>>;

struct Watcher {
    ef_cancellation *cancellation;
    int last;
};

static void print_step(void *user, const ef_step *step) {
    const Watcher *watcher = static_cast<const Watcher *>(user);
    std::printf("step %d of %d:", step->step, step->steps);
    for (int i = 0; i < step->length; i++)
        std::printf(" %s %.3f", step->tokens[i].piece,
                    static_cast<double>(step->tokens[i].probability));
    std::printf("\n");
    if (step->step == watcher->last) ef_cancel(watcher->cancellation);
}

int main(int argc, char **argv) {
    ef_error err;
    ef_model *model;
    ef_image *image;
    ef_answers *answers;
    ef_cancellation *cancellation;
    auto fail = [&err] { return std::fprintf(stderr, "%s\n", err.text), 1; };
    if (argc < 4) return std::fprintf(stderr, "usage: steps MODEL IMAGE QUESTION [LAST]\n"), 2;
    if (ef_model_open(argv[1], nullptr, &model, &err)) return fail();
    Owned<ef_model, ef_model_close> model_owner(model);
    if (ef_image_open(argv[2], &image, &err)) return fail();
    Owned<ef_image, ef_image_close> image_owner(image);
    if (ef_cancellation_new(&cancellation, &err)) return fail();
    Owned<ef_cancellation, ef_cancellation_close> cancellation_owner(cancellation);

    Watcher watcher = {cancellation, argc > 4 ? std::atoi(argv[4]) : 0};
    ef_options options = ef_options_default();
    options.on_step = print_step;
    options.user = &watcher;
    options.cancellation = cancellation;
    if (ef_ask(model, image, argv[3], &options, &answers, &err)) return fail();
    Owned<ef_answers, ef_answers_close> answers_owner(answers);
    std::puts(ef_answer_text(answers, 0));
    return 0;
}
