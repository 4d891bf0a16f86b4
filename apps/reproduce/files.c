#include "apps/reproduce/files.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "apps/cli/report.h"
#include "apps/reproduce/run_child.h"
#include "data/files/json_read.h"
#include "data/files/path.h"

/* Parameters of a part in what `info --json` printed; 0 without it. */
static double part_parameters(const json_t *info, const char *wanted) {
    const json_t *parts = json_object_get(info, "parts");
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const char *name = json_string_value(json_object_get(part, "part"));
        if (name && !strcmp(name, wanted))
            return json_number_value(json_object_get(part, "parameters"));
    }
    return 0;
}

/* `easyfirst info --json PATH`; its JSON, NULL where it fails (*said: it has said why). */
static json_t *model_info(const char *path, bool *said, Error *err) {
    const char *folder = getenv("TMPDIR");
    char *output = path_join(folder && *folder ? folder : "/tmp", "easyfirst-info-XXXXXX", err);
    const int fd = output ? mkstemp(output) : -1;
    json_t *info = NULL;
    *said = false;
    if (fd < 0) {
        if (output) error_set(err, "%s cannot be made: %s", output, strerror(errno));
        free(output);
        return NULL;
    }
    close(fd);
    char *words[] = {(char *)"info", (char *)"--json", (char *)path, NULL};
    int status = 0;
    if (run_child(NULL, words, output, NULL, &status, err) == 0 && status == 0)
        json_read_file(&info, output, 0, 0, 0, err);
    *said = status != 0;
    unlink(output);
    free(output);
    return info;
}

/* Whether a folder is the model that it is taken for. */
static int check_model(PlanFile *f, bool *usable, Error *err) {
    bool said;
    json_t *info = model_info(f->path, &said, err);
    *usable = info != NULL;
    if (!info && !said) return -1;
    if (!info) {
        report_print(stdout, "unusable  %s: see the message above; expected %s\n", f->path,
                     f->what);
        return 0;
    }
    const double found = part_parameters(info, "language model"), wanted = f->parameters;
    f->memory = json_number_value(json_object_get(info, "memory_bytes"));
    if (wanted > 0 && fabs(found - wanted) > 0.03 * wanted) {
        *usable = false;
        report_print(stdout,
                     "unusable  %s: a language model of %.0f M parameters, expected %s of %.0f M\n",
                     f->path, found * 1e-6, f->what, wanted * 1e-6);
    } else if (f->length_predictor && part_parameters(info, "length predictor") == 0) {
        *usable = false;
        report_print(stdout, "unusable  %s: has no length predictor; expected %s\n", f->path,
                     f->what);
    } else if (found > 0) {
        report_print(stdout, "found     %s: %.0f M parameters, %.1f GB to answer\n", f->path,
                     found * 1e-6, 1e-9 * f->memory);
    } else {
        report_print(stdout, "found     %s\n", f->path);
    }
    json_decref(info);
    return 0;
}

static bool is_needed(const Plan *p, int file) {
    for (int i = 0; i < p->step_count; i++)
        for (int f = 0; p->steps[i].needed && f < p->steps[i].file_count; f++)
            if (p->steps[i].files[f] == file) return true;
    return false;
}

int files_check(Plan *p, int *missing, Error *err) {
    *missing = 0;
    for (int i = 0; i < p->file_count; i++) {
        PlanFile *f = &p->files[i];
        if (!is_needed(p, i)) continue;
        bool usable = access(f->path, R_OK) == 0;
        if (!usable)
            report_print(stdout, "missing   %s: %s; from %s\n", f->path, f->what, f->from);
        else if (f->model)
            TRY(check_model(f, &usable, err));
        else
            report_print(stdout, "found     %s\n", f->path);
        *missing += !usable;
    }
    return report_flush(err);
}
