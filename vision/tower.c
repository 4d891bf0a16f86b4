#include "vision/tower.h"

int tower_image_size(const Tower *t) {
    return t->vit ? t->vit->config.image_size : t->net->config.image_size;
}

int tower_width(const Tower *t) {
    return t->vit ? t->vit->config.block.width : t->net->config.width;
}

int tower_grid(const Tower *t) {
    return t->vit ? t->vit->config.image_size / t->vit->config.patch : t->net->grid;
}

int tower_feature_rows(const Tower *t) {
    return t->vit ? vit_feature_rows(&t->vit->config) : efficientnet_feature_rows(t->net);
}

bool tower_class_row(const Tower *t) {
    return t->vit ? t->vit->config.class_token : t->net->config.class_token;
}

const Params *tower_params(const Tower *t) {
    return t->vit ? t->vit->params : t->net->params;
}

size_t tower_work_bytes(const Tower *t, int images) {
    return t->vit ? vit_work_bytes(t->vit, images) : efficientnet_work_bytes(t->net, images);
}

double tower_operations(const Tower *t, int64_t images) {
    if (!t->vit) return (double)images * efficientnet_operations(t->net);
    const VitConfig *v = &t->vit->config;
    double d = v->block.width, patches = (double)images * vit_patches(v);
    double weights = 4 * d * d + 2 * d * v->block.ffn;
    return 2.0 * (patches + (double)images) * weights * t->vit->depth +
           2.0 * patches * 3.0 * v->patch * v->patch * d;
}

int tower_forward(const Tower *t, Arena *arena, Tensor features, Tensor pixels, Error *err) {
    return t->vit ? vit_forward(t->vit, arena, features, pixels, NULL, err)
                  : efficientnet_forward(t->net, arena, features, pixels, err);
}
