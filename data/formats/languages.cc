// languages.cc - see languages.h. C++, for CLD2 has no C interface; no exception leaves it.

#include "data/formats/languages.h"

#ifdef EASYFIRST_CLD2
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include <cld2/public/encodings.h>

#include <cld2/public/compact_lang_det.h>

struct Languages {
    std::vector<CLD2::Language> listed;
    bool without = false; // all but those
};

namespace {

// More sentences say more than one long text, of which CLD2 names the language of the most only.
const char *sentence_end(const char *at) {
    for (; *at; at++) {
        if (*at == '\n') return at + 1;
        if (strchr(".!?:;", *at) && (at[1] == ' ' || at[1] == '\n')) return at + 1;
    }
    return at;
}

bool is_kept(const Languages *languages, CLD2::Language found) {
    for (CLD2::Language language : languages->listed)
        if (language == found) return !languages->without;
    return languages->without;
}

// Whether its language could be recognized.
bool add_piece(LanguageShares *shares, const Languages *languages, const char *text, size_t size) {
    CLD2::CLDHints hints = {nullptr, nullptr, CLD2::UNKNOWN_ENCODING, CLD2::UNKNOWN_LANGUAGE};
    CLD2::Language found[3];
    int percent[3], bytes = 0, valid = 0;
    double scores[3];
    bool reliable = false;
    if (size > 1 << 30) return false;
    CLD2::ExtDetectLanguageSummaryCheckUTF8(text, static_cast<int>(size), true, &hints, 0, found,
                                            percent, scores, nullptr, &bytes, &reliable, &valid);
    if (!reliable) return false;
    for (int i = 0; i < 3; i++) {
        const double part = percent[i] * 0.01 * bytes;
        if (found[i] == CLD2::UNKNOWN_LANGUAGE) continue;
        if (is_kept(languages, found[i])) {
            shares->kept += part;
            continue;
        }
        shares->other += part;
        if (part <= shares->longest) continue;
        shares->longest = part;
        snprintf(shares->code, sizeof shares->code, "%s", CLD2::LanguageCode(found[i]));
    }
    return true;
}

int add_code(Languages *languages, const std::string &code, Error *err) {
    static const char prefix[] = "not-";
    const bool without = code.compare(0, strlen(prefix), prefix) == 0;
    const std::string name = code.substr(without ? strlen(prefix) : 0);
    const CLD2::Language language = CLD2::GetLanguageFromName(name.c_str());
    if (language == CLD2::UNKNOWN_LANGUAGE)
        return error_set(err,
                         "languages: no language \"%.40s\"; expected codes such as en,fr, or "
                         "not-de for all but one",
                         name.c_str());
    if (!languages->listed.empty() && languages->without != without)
        return error_set(err, "languages: either those that stay (en,fr) or those that are left "
                              "out (not-de), not both");
    languages->listed.push_back(language);
    languages->without = without;
    return 0;
}

int add_codes(Languages *languages, const char *list, Error *err) {
    for (const char *at = list;;) {
        const size_t size = strcspn(at, ",");
        if (add_code(languages, std::string(at, size), err)) return -1;
        if (!at[size]) return 0;
        at += size + 1;
    }
}

} // namespace

int languages_open(Languages **languages, const char *list, Error *err) {
    *languages = nullptr;
    try {
        *languages = new Languages;
        if (add_codes(*languages, list, err) == 0) return 0;
    } catch (const std::exception &) {
        error_set(err, "out of memory for a list of languages");
    }
    languages_close(*languages);
    *languages = nullptr;
    return -1;
}

void languages_close(Languages *languages) {
    delete languages;
}

void languages_add(LanguageShares *shares, const Languages *languages, const char *text) {
    bool known = false;
    try {
        for (const char *at = text, *end; *at; at = end) {
            end = sentence_end(at);
            known |= add_piece(shares, languages, at, static_cast<size_t>(end - at));
        }
        if (!known) add_piece(shares, languages, text, strlen(text));
    } catch (const std::exception &) { // out of memory: as if it were too short
    }
}
#else
int languages_open(Languages **languages, const char *list, Error *err) {
    *languages = nullptr;
    return error_set(err,
                     "languages %.40s: this build cannot tell languages; install CLD2 "
                     "(libcld2-dev) and build again",
                     list);
}

void languages_close(Languages *) {}

void languages_add(LanguageShares *, const Languages *, const char *) {}
#endif

bool languages_exclude(const LanguageShares *shares) {
    return shares->other > 0.2 * (shares->kept + shares->other);
}
