#include "vision/patch_map.h"

int patch_rectangle(PatchRectangle *rectangle, int width, int height,
                    const PreprocessConfig *config, Error *err) {
    PreprocessMap map;
    TRY(preprocess_map(&map, width, height, config, err));
    *rectangle = (PatchRectangle){map.left, map.top, map.left + map.scale_x * config->size,
                                  map.top + map.scale_y * config->size};
    return 0;
}

/* The length that [a0, a1) and [b0, b1) share. */
static double overlap(double a0, double a1, double b0, double b1) {
    double begin = a0 > b0 ? a0 : b0, end = a1 < b1 ? a1 : b1;
    return end > begin ? end - begin : 0;
}

double patch_map_cells(double *out, int cells, const float *map, int grid, const PatchRectangle *r,
                       int width, int height) {
    double dx = (r->right - r->left) / grid, dy = (r->bottom - r->top) / grid, sum = 0;
    double cell_x = (double)width / cells, cell_y = (double)height / cells;
    for (int x = 0; x < cells; x++) {
        for (int y = 0; y < cells; y++) {
            double total = 0;
            for (int py = 0; py < grid; py++) {
                double high =
                    overlap(y * cell_y, (y + 1) * cell_y, r->top + py * dy, r->top + (py + 1) * dy);
                if (high <= 0) continue;
                for (int px = 0; px < grid; px++)
                    total += map[py * grid + px] * high / dy *
                             overlap(x * cell_x, (x + 1) * cell_x, r->left + px * dx,
                                     r->left + (px + 1) * dx) /
                             dx;
            }
            out[x * cells + y] = total;
            sum += total;
        }
    }
    return sum;
}
