/* score.h - what `easyfirst score` compares, a file each. As commands.h: argv[0] is "gqa", say. */
#ifndef EASYFIRST_APPS_SCORE_SCORE_H
#define EASYFIRST_APPS_SCORE_SCORE_H

int score_text(int argc, char **argv);
int score_gqa(int argc, char **argv);

#endif
