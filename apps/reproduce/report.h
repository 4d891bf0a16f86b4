/* report.h - a table's report: OUT/TABLE.md, .json and .html. */
#ifndef EASYFIRST_APPS_REPRODUCE_REPORT_H
#define EASYFIRST_APPS_REPRODUCE_REPORT_H

#include "apps/reproduce/claims.h"

/* Writes the three files, and the table's rows to standard output. *without counts cells that a
 * step should have given and has not; in a trial not those whose finished step counted nothing. */
int report_write(const Plan *plan, const StepRecord *records, int *without, Error *err);

/* The page's HTML; `outcomes` is one for each cell. */
int report_page(const Plan *plan, const StepRecord *records, const Outcome *outcomes,
                const Claims *claims, const char *path, Error *err);

/* What a trial, or --small, makes of the numbers; NULL for a full run. */
const char *report_caution(const Plan *plan);

#endif
