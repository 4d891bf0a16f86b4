/* clean_text.h - makes untrusted text safe for a terminal.
 *
 * Names of tensors, records and files, questions and answers are untrusted. All that the program
 * prints of them goes through here, so that none can move the cursor, recolor the screen or break a
 * line. */
#ifndef EASYFIRST_KERNELS_CLEAN_TEXT_H
#define EASYFIRST_KERNELS_CLEAN_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Replaces, in place, every character that a terminal may interpret by '?': C0 controls (tab and
 * newline included), DEL, C1 controls in both forms (U+0080..U+009F as UTF-8, and lone bytes that
 * are not valid UTF-8), the line and paragraph separators U+2028 and U+2029, and the bidirectional
 * controls U+200E, U+200F, U+202A..U+202E and U+2066..U+2069, which reorder the text around them.
 * The text never becomes longer. */
void clean_text(char *text);

/* Whether a terminal may interpret the character, or it changes how the text around it is
 * displayed: C0 and C1 controls, DEL, line separators, the controls that embed, override or isolate
 * directions (not the marks U+200E and U+200F, which right-to-left text needs), deprecated and
 * annotation controls, the byte order mark, tags. */
bool is_control_character(unsigned code);

/* Writes a printable form, at most 4 bytes, of the character at `text` [size, at least 1 byte] and
 * returns its length; *used is how many bytes of text it stands for. White space becomes a space,
 * other controls and invalid UTF-8 become U+FFFD. */
size_t clean_character(char out[4], const char *text, size_t size, size_t *used);

/* The length in bytes of the valid UTF-8 character at `text` (terminated); 0 if it is not valid (an
 * overlong form, a surrogate, beyond U+10FFFF, truncated) or the end. *code (may be NULL) receives
 * its code point. */
size_t utf8_next(const char *text, unsigned *code);

#endif
