/* train.c - the command: reads the settings and runs the trainer. */
#include "apps/commands.h"
#include "apps/cli/processes.h"
#include "apps/cli/report.h"
#include "apps/train/ranks.h"
#include "apps/train/settings.h"
#include "apps/train/trainer.h"

/* Of several processes each reads the same command line, and finds the same wrong with it. */
static int read_settings(TrainSettings *settings, int argc, char **argv) {
    const int muted = processes_mute();
    int status = train_settings_read(settings, argc, argv);
    processes_unmute(muted, status >= 0);
    return status;
}

int command_train(int argc, char **argv) {
    TrainSettings settings;
    int status = read_settings(&settings, argc, argv);
    if (status < 0) {
        Error err = {{0}};
        Ranks ranks;
        status = ranks_open(&ranks, &settings, &err) ? 1 : 0;
        if (!status && ranks_agree(&ranks, train_settings_check(&settings, &err), &err)) status = 2;
        if (!status) status = trainer_run(&settings, &ranks, &err);
        if (status < 0) status = 1;
        /* One of several processes says it for all, before mpirun ends them. */
        if (status && err.text[0] && ranks_agreed(&ranks))
            error_context(&err, "train"), report_failure(&err);
        ranks_close(&ranks, status, &err);
    }
    train_settings_free(&settings);
    return status;
}
