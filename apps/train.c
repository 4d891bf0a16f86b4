/* train.c - the command: reads the settings and runs the trainer. */
#include "apps/commands.h"
#include "apps/cli/report.h"
#include "apps/train/settings.h"
#include "apps/train/trainer.h"

int command_train(int argc, char **argv) {
    TrainSettings settings;
    int status = train_settings_read(&settings, argc, argv);
    if (status < 0) {
        Error err = {{0}};
        if (train_settings_check(&settings, &err))
            status = 2;
        else
            status = trainer_run(&settings, &err);
        if (status < 0) status = 1;
        if (status) error_context(&err, "train"), report_failure(&err);
    }
    train_settings_free(&settings);
    return status;
}
