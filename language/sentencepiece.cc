// sentencepiece.cc - see sentencepiece.h. C++, as data/formats/languages.cc, since the library has no C
// interface. Every function here that calls code that may throw catches it.

#include "language/sentencepiece.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include <sys/stat.h>

#include <sentencepiece_processor.h>

struct SentencePiece {
    sentencepiece::SentencePieceProcessor processor;
    std::vector<std::string> pieces; // copies: the library's accessors do not check bounds
};

namespace {

// XLM-R's model is 5 MB.
constexpr long long LARGEST_FILE = 256LL << 20;

struct FileCloser {
    void operator()(FILE *file) const {
        fclose(file);
    }
};

int file_read(std::string *bytes, const char *path, Error *err) {
    std::unique_ptr<FILE, FileCloser> file(fopen(path, "rb"));
    struct stat info;
    if (!file || fstat(fileno(file.get()), &info) != 0)
        return error_set(err,
                         "%s: cannot open it (%s); expected XLM-R's sentencepiece.bpe.model, which "
                         "comes with the checkpoint",
                         path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return error_set(err, "%s: not a regular file, expected a SentencePiece model file", path);
    if (info.st_size == 0)
        return error_set(err, "%s: empty file, expected a SentencePiece model; fetch it again",
                         path);
    if (info.st_size > LARGEST_FILE)
        return error_set(err, "%s: %lld bytes, expected a SentencePiece model of at most %lld",
                         path, (long long)info.st_size, LARGEST_FILE);
    bytes->resize((size_t)info.st_size);
    size_t got = fread(&(*bytes)[0], 1, bytes->size(), file.get());
    if (got != bytes->size())
        return error_set(err, "%s: read %zu of %zu bytes (%s)", path, got, bytes->size(),
                         ferror(file.get()) ? strerror(errno) : "the file became shorter");
    return 0;
}

// Memory to fall back on while protobuf makes messages: an exception in the middle leaves half-made
// ones behind, whose destructors crash. The first allocation that fails anywhere frees the reserve
// and is tried again; only when that is used up, too, does one throw. A handler knows no user data,
// hence the statics. Nothing touches the reserve: it costs addresses, not memory.
struct Reserve {
    static std::atomic<void *> memory;
    static std::size_t size;
    static std::mutex lock; // of size, and of filling up
    static std::new_handler before;

    static void use() {
        if (void *taken = memory.exchange(nullptr))
            free(taken);
        else if (before)
            before();
        else
            throw std::bad_alloc();
    }

    // Allocates the reserve for `bytes` of a model or text.
    static void fill(std::size_t bytes) {
        // Usually more than their messages need.
        const std::size_t wanted = 128 * std::min<std::size_t>(bytes, 1 << 21) + (4 << 20);
        std::lock_guard<std::mutex> guard(lock);
        if (std::get_new_handler() != use) before = std::set_new_handler(use);
        if (memory.load() && size >= wanted) return;
        void *fresh = malloc(wanted);
        if (!fresh) throw std::bad_alloc();
        free(memory.exchange(fresh));
        size = wanted;
    }
};
std::atomic<void *> Reserve::memory{nullptr};
std::size_t Reserve::size = 0;
std::mutex Reserve::lock;
std::new_handler Reserve::before = nullptr;

int model_load(SentencePiece *model, const char *path, Error *err) {
    std::string bytes;
    TRY(file_read(&bytes, path, err));
    size_t size = bytes.size();
    TRY(sentencepiece_check(&bytes[0], &size, path, err));
    bytes.resize(size);
    Reserve::fill(size);
    auto status = model->processor.LoadFromSerializedProto(bytes);
    if (!status.ok())
        return error_set(err, "%s: the sentencepiece library refuses it: %s", path,
                         status.ToString().c_str());
    int count = model->processor.GetPieceSize();
    model->pieces.reserve(count);
    for (int i = 0; i < count; i++) model->pieces.emplace_back(model->processor.IdToPiece(i));
    return 0;
}

} // namespace

extern "C" int sentencepiece_open(SentencePiece **model, const char *path, Error *err) {
    *model = nullptr;
    try {
        auto opened = std::make_unique<SentencePiece>();
        TRY(model_load(opened.get(), path, err));
        *model = opened.release();
        return 0;
    } catch (const std::exception &e) {
        return error_set(err, "%s: the sentencepiece library failed on it: %s", path, e.what());
    }
}

extern "C" void sentencepiece_close(SentencePiece *model) {
    delete model;
}

extern "C" int32_t sentencepiece_count(const SentencePiece *model) {
    return (int32_t)model->pieces.size();
}

extern "C" const char *sentencepiece_piece(const SentencePiece *model, int32_t piece) {
    if (piece < 0 || (size_t)piece >= model->pieces.size()) return nullptr;
    return model->pieces[(size_t)piece].c_str();
}

extern "C" int sentencepiece_encode(const SentencePiece *model, const char *text, size_t size,
                                    int32_t **pieces, size_t *count, Error *err) {
    *pieces = nullptr;
    *count = 0;
    if (size == 0) return 0;
    if (size > SENTENCEPIECE_LONGEST_TEXT)
        return error_set(err, "text: %zu bytes in one piece, at most %d can be encoded; split it",
                         size, SENTENCEPIECE_LONGEST_TEXT);
    try {
        Reserve::fill(size);
        std::vector<int> ids;
        auto status = model->processor.Encode(std::string_view(text, size), &ids);
        if (!status.ok())
            return error_set(err, "text: the sentencepiece library cannot encode it: %s",
                             status.ToString().c_str());
        if (ids.empty()) return 0;
        auto *copy = static_cast<int32_t *>(malloc(ids.size() * sizeof(int32_t)));
        if (!copy) return error_set(err, "text: out of memory for %zu pieces", ids.size());
        for (size_t i = 0; i < ids.size(); i++) copy[i] = ids[i];
        *pieces = copy;
        *count = ids.size();
        return 0;
    } catch (const std::exception &e) {
        return error_set(err, "text: the sentencepiece library failed on it: %s", e.what());
    }
}
