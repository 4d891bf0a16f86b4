// sentencepiece.cc - see sentencepiece.h. The only C++ of the project, since the library has no C
// interface. Every function that calls what may throw catches it here.

#include "language/sentencepiece.h"

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
    std::vector<std::string> pieces; // copies: the library's accessors are not bounded
};

namespace {

// XLM-R's model is 5 MB; nothing near this size is one.
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

// Memory to fall back on while protobuf parses a model: an exception in the middle leaves messages
// behind that crash when they are destroyed. The first allocation that fails frees it; only when it
// is used up, too, does one throw. (new_handler knows no user data, hence the static.)
struct Reserve {
    static void *memory;
    std::new_handler before;
    explicit Reserve(size_t size) : before(std::get_new_handler()) {
        memory = malloc(size);
        if (!memory) throw std::bad_alloc();
        std::set_new_handler([]() {
            if (!memory) throw std::bad_alloc();
            free(memory);
            memory = nullptr;
        });
    }
    ~Reserve() {
        std::set_new_handler(before);
        free(memory);
        memory = nullptr;
    }
    Reserve(const Reserve &) = delete;
    Reserve &operator=(const Reserve &) = delete;
};
void *Reserve::memory;

int model_load(SentencePiece *model, const char *path, Error *err) {
    std::string bytes;
    TRY(file_read(&bytes, path, err));
    size_t size = bytes.size();
    TRY(sentencepiece_check(&bytes[0], &size, path, err));
    bytes.resize(size);
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    Reserve reserve(16 * size + (1 << 20)); // more than the messages of these bytes take
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
        std::vector<int> ids;
        auto status = model->processor.Encode(std::string_view(text, size), &ids);
        if (!status.ok())
            return error_set(err, "text: the sentencepiece library cannot encode it: %s",
                             status.ToString().c_str());
        if (ids.empty()) return 0;
        auto *copy = static_cast<int32_t *>(malloc(ids.size() * sizeof(int32_t)));
        if (!copy) return error_set(err, "text: no memory for %zu pieces", ids.size());
        for (size_t i = 0; i < ids.size(); i++) copy[i] = ids[i];
        *pieces = copy;
        *count = ids.size();
        return 0;
    } catch (const std::exception &e) {
        return error_set(err, "text: the sentencepiece library failed on it: %s", e.what());
    }
}
