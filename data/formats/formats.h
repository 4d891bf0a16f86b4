/* formats.h - the readers of the formats, for the table in formats.c. Each is defined in the file of its
 * name; see format.h.
 */
#ifndef EASYFIRST_DATA_FORMATS_FORMATS_H
#define EASYFIRST_DATA_FORMATS_FORMATS_H

#include "data/formats/format.h"

bool mmlu_known(FormatInput *input);
int mmlu_read(FormatInput *input, Error *err);
bool mgsm_known(FormatInput *input);
int mgsm_read(FormatInput *input, Error *err);
bool csv_header_known(FormatInput *input);
int csv_header_read(FormatInput *input, Error *err);
bool tsv_header_known(FormatInput *input);
int tsv_header_read(FormatInput *input, Error *err);
bool pairs_known(FormatInput *input);
int pairs_read(FormatInput *input, Error *err);
bool parallel_known(FormatInput *input);
int parallel_read(FormatInput *input, Error *err);
bool star_known(FormatInput *input);
int star_read(FormatInput *input, Error *err);
bool squad_known(FormatInput *input);
int squad_read(FormatInput *input, Error *err);
bool bbh_known(FormatInput *input);
int bbh_read(FormatInput *input, Error *err);
/* An array or lines of objects of any kind, read one after another: for demonstrations and for what
 * wants lines. */
int objects_read(FormatInput *input, Error *err);

bool gsm8k_known(const json_t *object);
json_t *gsm8k_convert(json_t *object, const Prompting *prompting, ObjectFault *fault);
/* An answer whose last line "#### 24" is "The answer is 24.", with or without its calculator marks; the
 * caller's to free. 1: it has no such line; -1: out of memory. */
int gsm8k_finish(char **finished, const char *answer, bool marks);
bool alpaca_known(const json_t *object);
json_t *alpaca_convert(json_t *object, const Prompting *prompting, ObjectFault *fault);
bool messages_known(const json_t *object);
json_t *messages_convert(json_t *object, const Prompting *prompting, ObjectFault *fault);
bool finished_known(const json_t *object);
json_t *finished_convert(json_t *object, const Prompting *prompting, ObjectFault *fault);

/* The text of a member that must be a string without NUL; NULL with the fault. */
const char *object_text(const json_t *object, const char *key, ObjectFault *fault);

#endif
