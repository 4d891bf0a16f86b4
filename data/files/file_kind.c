#include "data/files/file_kind.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

typedef struct Magic {
    const char *bytes;
    size_t size;
    const char *hint;
} Magic;

/* In the order in which they are tried. */
static const Magic magics[] = {
    {"PAR1", 4, "a Parquet file; convert it to JSON lines or a JSON array first"},
    {"\x1F\x8B", 2, "a gzip-compressed file; decompress it first (gunzip)"},
    {"PK\x03\x04", 4, "a zip archive; extract it first"},
    {"BZh", 3, "a bzip2-compressed file; decompress it first (bunzip2)"},
    {"\xFD\x37zXZ", 5, "an xz-compressed file; decompress it first (unxz)"},
    {"\x28\xB5\x2F\xFD", 4, "a zstd-compressed file; decompress it first (unzstd)"},
    {"7z\xBC\xAF", 4, "a 7z archive; extract it first"},
    {"ARROW1", 6, "an Arrow file; convert it to JSON lines first"},
    {"Obj\x01", 4, "an Avro file; convert it to JSON lines first"},
    {"SQLite format 3", 15, "an SQLite database"},
    {"\x89HDF", 4, "an HDF5 file"},
    {"\x93NUMPY", 6, "a NumPy array file"},
    {"GGUF", 4, "a GGUF file"},
    {"%PDF-", 5, "a PDF document"},
    {"\x89PNG", 4, "a PNG image"},
    {"\xFF\xD8\xFF", 3, "a JPEG image"},
    {"GIF8", 4, "a GIF image"},
    {"RIFF", 4, "a RIFF file (WebP image, WAV or AVI)"},
    {"\x7F"
     "ELF",
     4, "a program (ELF)"},
    {"version https://git-lfs", 23,
     "a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`"},
    {"Entry not found", 15,
     "a server's error message (\"Entry not found\") saved as the file; download it again"},
    {"Repository not found", 20,
     "a server's error message (\"Repository not found\") saved as the file; download it again"},
    {"Invalid username or password", 28,
     "a server's error message (\"Invalid username or password\") saved as the file; log in and "
     "download it again"},
    {"Access to model", 15,
     "a server's error message (\"Access to model ...\") saved as the file; log in and download it "
     "again"},
};

enum { ANSWER_MOST = 400 }; /* bytes of a server's response */

static const char ustar[] = "ustar";
static const char utf16[] = "a text in UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)";
static const char utf32[] = "a text in UTF-32; convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)";

/* Two ASCII characters in UTF-16 without a byte order mark: every other byte is 0. */
static bool looks_utf16(const unsigned char *b, size_t size) {
    if (size < 4) return false;
    return (b[0] && !b[1] && b[2] && !b[3] && b[0] < 0x80 && b[2] < 0x80) ||
           (!b[0] && b[1] && !b[2] && b[3] && b[1] < 0x80 && b[3] < 0x80);
}

static const char *text_encoding(const unsigned char *b, size_t size) {
    if (size >= 4 && (!memcmp(b, "\xFF\xFE\0\0", 4) || !memcmp(b, "\0\0\xFE\xFF", 4))) return utf32;
    if (size >= 2 && (!memcmp(b, "\xFF\xFE", 2) || !memcmp(b, "\xFE\xFF", 2))) return utf16;
    return looks_utf16(b, size) ? utf16 : NULL;
}

static bool begins(const char *text, size_t size, const char *with) {
    size_t length = strlen(with);
    return size >= length && !strncasecmp(text, with, length);
}

/* {"error": ...} and little else: a server's response instead of a file. */
static bool is_error_object(const char *text, size_t size) {
    static const char key[] = "\"error\"";
    if (!size || size > ANSWER_MOST || text[0] != '{') return false;
    size_t at = 1;
    while (at < size && strchr(" \t\r\n", text[at]) && text[at]) at++;
    return begins(text + at, size - at, key);
}

static const char *text_kind(const char *text, size_t size) {
    size_t at = size >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3) ? 3 : 0;
    while (at < size && text[at] && strchr(" \t\r\n", text[at])) at++;
    text += at, size -= at;
    if (begins(text, size, "<!doctype html") || begins(text, size, "<html"))
        return "an HTML page, such as an error or login page; download the file itself";
    if (begins(text, size, "<?xml")) return "an XML document";
    if (is_error_object(text, size))
        return "a server's error message ({\"error\": ...}) saved as the file; download it again";
    return NULL;
}

const char *file_kind_hint(const void *bytes, size_t size) {
    const unsigned char *b = bytes;
    if (!size) return "empty (0 bytes); copy or download it again";
    for (size_t i = 0; i < sizeof magics / sizeof magics[0]; i++) {
        const Magic *m = &magics[i];
        if (size >= m->size && !memcmp(b, m->bytes, m->size)) return m->hint;
    }
    if (size >= 262 && !memcmp(b + 257, ustar, sizeof ustar - 1))
        return "a tar archive; extract it first";
    const char *encoding = text_encoding(b, size);
    /* A header's length in 8 bytes, then JSON. */
    if (size >= 9 && b[8] == '{' && !b[4] && !b[5] && !b[6] && !b[7])
        return "a safetensors file (a model's weights)";
    if (size >= 2 && b[0] == 0x80 && b[1] >= 2 && b[1] <= 5) return "a Python pickle";
    return encoding ? encoding : text_kind((const char *)bytes, size);
}

const char *file_kind_of(int fd) {
    unsigned char bytes[FILE_KIND_BYTES];
    ssize_t got = pread(fd, bytes, sizeof bytes, 0);
    return got < 0 ? NULL : file_kind_hint(bytes, (size_t)got);
}
