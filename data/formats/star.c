/* star.c - star graphs: "2,8|5,2|5,9|9,3/5,8=5,2,8", edges / start, goal = path. */
#include <stdlib.h>
#include <string.h>

#include "data/formats/formats.h"
#include "data/formats/table.h"

/* The text after "<number>,<number>"; NULL. */
static const char *pair_end(const char *text, long *a, long *b) {
    char *end;
    if (*text < '0' || *text > '9') return NULL;
    *a = strtol(text, &end, 10);
    if (*end != ',' || end[1] < '0' || end[1] > '9') return NULL;
    *b = strtol(end + 1, &end, 10);
    return end;
}

/* Whether the edges, up to the slash, have one between two nodes. */
static bool has_edge(const char *text, long a, long b) {
    long from, to;
    for (; text; text = *text == '|' ? text + 1 : NULL) {
        text = pair_end(text, &from, &to);
        if (!text) break;
        if ((from == a && to == b) || (from == b && to == a)) return true;
    }
    return false;
}

/* Why a line is not a graph with its path; NULL: it is. */
static const char *graph_fault(const char *line) {
    long a, b, start, goal, node;
    const char *at = pair_end(line, &a, &b);
    while (at && *at == '|') at = pair_end(at + 1, &a, &b);
    if (!at || *at != '/') return "expected edges as 2,8|5,2 and a slash";
    at = pair_end(at + 1, &start, &goal);
    if (!at || *at != '=') return "expected start,goal= after the slash";
    node = -1;
    do {
        char *end;
        if (at[1] < '0' || at[1] > '9') return "expected the path's nodes with commas between them";
        long next = strtol(at + 1, &end, 10);
        if (node < 0 && next != start) return "the path does not begin at the start";
        if (node >= 0 && !has_edge(line, node, next)) return "the path leaves the edges";
        node = next, at = end;
    } while (*at == ',');
    if (*at) return "expected the path's nodes with commas between them";
    return node == goal ? NULL : "the path does not end at the goal";
}

static bool fits(const Csv *row) {
    return !graph_fault(row->fields[0]);
}

bool star_known(FormatInput *input) {
    return table_is(input, CSV_LINES, fits, false);
}

static int take_line(void *user, FormatInput *input, const Csv *row, Error *err) {
    (void)user;
    const char *fault = graph_fault(row->fields[0]);
    if (strlen(row->fields[0]) != row->sizes[0]) fault = "it has a NUL byte";
    if (fault) {
        sample_reject(input, row->first, "not a star graph", "%s", fault);
        return 0;
    }
    const char *path = strchr(row->fields[0], '=') + 1;
    char *stem = strndup(row->fields[0], (size_t)(path - row->fields[0]));
    if (!stem) return error_set(err, "%s: out of memory", input->path);
    int status = sample_take(input,
                             &(Sample){.instruction = "",
                                       .stem = stem,
                                       .answer = path,
                                       .between = "",
                                       .bare = true,
                                       .number = row->first},
                             err);
    free(stem);
    return status;
}

int star_read(FormatInput *input, Error *err) {
    return table_walk(input, CSV_LINES, take_line, NULL, err);
}
