/* page.h - a trace as one self-contained HTML page that makes no network request.
 *
 * The page (apps/show/page/: page.html with placeholders, page.css, page.js; built into the
 * program) shows the image, the question and the answer with a slider through the steps, each
 * token's probability, top-k alternatives and place in the order, a grid of positions and steps,
 * all hypotheses, and each token's attention over the image.
 *
 * Security: a Content-Security-Policy allows this one script and this one style, by their hashes,
 * and images embedded in the page; nothing else, and no request at all. Every text is cleaned of
 * control characters (apps/show/text.h) and is either escaped in the markup or in a block of JSON
 * without "<", ">" and "&"; the script puts it into text nodes only. The image is re-encoded from
 * its pixels, at most PAGE_EDGE on a side: upright, and without the file's metadata (places, dates,
 * names, thumbnails).
 *
 * The block of JSON, in the element "trace", is smaller than a trace file (trace.h):
 *
 *   image, model  texts, if known; only the last part of their paths
 *   question      text, of an empty one the template; prompt: whether it is a prompt
 *   template      text with gaps that the answer fills in; missing: none
 *   dropped_tokens    at its beginning, that the model did not read; missing: none
 *   strategy, seed, evaluations, prompt_tokens    the seed as a string, with all its digits
 *   best          index of the best hypothesis
 *   pieces        list of texts that are named by index
 *   geometry      as in a trace file; missing without an image
 *   hypotheses    list of {"text", "length", "sample", "score", "evaluations", "steps"} and
 *     fixed       optional: positions whose tokens a template gives; they are there before the first
 *                 step, too, and have no entries in the steps after the first
 *     attention   optional: for each position a list of grid * grid whole numbers, shares of
 *                 the attention in millionths
 *
 * A step is [whether the network ran: 0 or 1, cell, ...] with only the cells that changed in this
 * step (before the first: masks without proposals). A cell is [position, piece or -1 for a mask,
 * log-probability (0 if masked), [piece, log-probability, ...]], the last the network's likeliest
 * tokens in this step: its proposal, then alternatives.
 */
#ifndef EASYFIRST_APPS_SHOW_PAGE_H
#define EASYFIRST_APPS_SHOW_PAGE_H

#include "apps/trace/trace.h"
#include "vision/image.h"

enum { PAGE_EDGE = 1024 }; /* pixels */

/* Writes the page of a finished trace to a file, which appears whole or not at all; "-" is standard
 * output, which the caller flushes. `image` (NULL: the page has none) is the trace's, upright, as
 * image_read gives it; another size than the trace's is an error. The same trace and image give the
 * same bytes. */
int page_write(const Trace *trace, const Image *pixels, const char *path, Error *err);

/* The same as text, terminated; the caller's to free. *size (may be NULL) does not count the
 * terminator. NULL on failure. */
char *page_text(const Trace *trace, const Image *pixels, size_t *size, Error *err);

#endif
