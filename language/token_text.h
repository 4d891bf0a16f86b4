/* token_text.h - texts and lists of their pieces, as the steps of a tokenizer pass them on.
 *
 * All texts are valid UTF-8 and may hold NUL bytes. Every function that appends can fail only for
 * lack of memory. */
#ifndef EASYFIRST_LANGUAGE_TOKEN_TEXT_H
#define EASYFIRST_LANGUAGE_TOKEN_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/error.h"

/* A growable text; zero-initialize, free with token_text_free. */
typedef struct TokenText {
    char *bytes;
    size_t size, capacity;
} TokenText;

int token_text_append(TokenText *text, const char *bytes, size_t size, Error *err);
int token_text_append_character(TokenText *text, uint32_t character, Error *err);
int token_text_set(TokenText *text, const char *bytes, size_t size, Error *err);
void token_text_free(TokenText *text);

/* The character at bytes[0] of a valid text that is not empty, and its length. */
uint32_t token_character(const char *bytes, size_t *length);

/* The length of the valid character at bytes[0] of any bytes; or, with the value false, of those
 * there that begin a character but do not complete it, at least 1. */
bool token_step(const char *bytes, size_t size, size_t *length);

/* Writes the character's UTF-8; returns its length. */
size_t token_character_write(char out[4], uint32_t character);

/* Unicode's White_Space, as Rust's char::is_whitespace and regular expressions have it. */
bool token_is_space(uint32_t character);

/* A part of a text, or an id that is already known (a token found as a whole). */
typedef struct TokenPiece {
    size_t start, size; /* in the list's text */
    int32_t id;         /* -1: a text */
    bool first;         /* begins where the tokenizer's input does */
} TokenPiece;

typedef struct TokenPieces {
    TokenText text;
    TokenPiece *list;
    size_t count, capacity;
} TokenPieces;

/* Appends a copy of a text as a piece; empty texts are dropped. */
int token_pieces_add(TokenPieces *pieces, const char *bytes, size_t size, bool first, Error *err);
int token_pieces_add_id(TokenPieces *pieces, int32_t id, Error *err);
/* Appends what was added to the list's text since `start` as a piece, unless it is empty. */
int token_pieces_close(TokenPieces *pieces, size_t start, bool first, Error *err);
/* The same, but also if it is empty. */
int token_pieces_end(TokenPieces *pieces, size_t start, Error *err);
void token_pieces_clear(TokenPieces *pieces);
void token_pieces_free(TokenPieces *pieces);
void token_pieces_swap(TokenPieces *a, TokenPieces *b);

/* GPT-2's alphabet: every byte has a printable character. token_byte_of is -1 for other ones. */
uint32_t token_byte_character(unsigned char byte);
int token_byte_of(uint32_t character);

/* Appends bytes as characters of that alphabet. */
int token_text_append_mapped(TokenText *text, const char *bytes, size_t size, Error *err);

/* Appends bytes as text: each part that is not valid UTF-8 becomes U+FFFD, divided as Rust's
 * from_utf8_lossy and the Unicode standard recommend. */
int token_text_append_lossy(TokenText *text, const char *bytes, size_t size, Error *err);

#endif
