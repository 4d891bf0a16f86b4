/* llama_folder.h - model folders of LLaMA's kind, made of tests/golden/llama: a language model by
 * links that reads 700 tokens, settings, and the parts for images. */
#ifndef EASYFIRST_TESTS_LLAMA_FOLDER_H
#define EASYFIRST_TESTS_LLAMA_FOLDER_H

#include "tests/program.h"

#define LLAMA_FOLDERS "tests/golden/llama/folders/"
#define LLAMA_IMAGES  "tests/golden/llama/images/"

typedef struct LlamaFolder {
    const char *kind;     /* of LLAMA_FOLDERS; "qwen2" is dream's files by another name */
    const char *settings; /* easyfirst.json; NULL: none */
    int side;             /* of images: 224 or 336; 0: none */
} LlamaFolder;

/* Makes the folder in the run's; its path to `folder`. */
void llama_folder_make(const Run *r, const LlamaFolder *what, char *folder, size_t size);

/* Writes the square image that tests/reference/make_llama_images.py describes as a PPM. */
void llama_image_write(const Run *r, int side, const char *name, char *path, size_t size);

/* Its pixels [side, side, 3], the caller's to free. */
uint8_t *llama_image_pixels(int side);

#endif
