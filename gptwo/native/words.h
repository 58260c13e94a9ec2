/* The words of texts and their hashes, for the kernels that compare texts by them: gptwo/corpus/
   minhash.py says what a word is and how it is hashed (its plain twin is `_words`). What is a letter,
   and its lower case, Python's own tables say. */
#ifndef GPTWO_WORDS_H
#define GPTWO_WORDS_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

enum { NOT_ASCII = 255 }; /* in `folded`, where a byte's value + 1 is at most 123 */
#define ITEM ((Py_ssize_t)sizeof(int64_t))

static const uint64_t FACTOR = 0x9E3779B97F4A7C15u, WORD_FACTOR = 0xD6E8FEB86659FD93u;

static uint8_t folded[256]; /* a byte of a word in lower case + 1; 0 between words */

typedef struct {
    const uint8_t *at, *end; /* what is still to be read of a text */
} Words;

typedef struct {
    uint64_t hash; /* sum of (byte + 1) * FACTOR^place over the folded bytes */
    const uint8_t *begin, *end;
} Word;

static void prepare_words(void) {
    for (int c = 0; c < 256; c++) {
        int is_word = c < 128 && (Py_ISALNUM(c) || c == '_');
        folded[c] = c >= 128 ? NOT_ASCII : is_word ? (uint8_t)(Py_TOLOWER(c) + 1) : 0;
    }
}

/* Spread every input bit over all output bits (the finaliser of splitmix64). */
static inline uint64_t mix(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/* The code point at `at`, which is past ASCII, and its length; U+FFFD for one byte out of place. */
static uint32_t decode(const uint8_t *at, const uint8_t *end, int *size) {
    int more = *at >= 0xF0 ? 3 : *at >= 0xE0 ? 2 : *at >= 0xC0;
    uint32_t code = *at & (0x3Fu >> more);
    *size = 1;
    if (!more || end - at <= more) return 0xFFFD;
    for (int i = 1; i <= more; i++) {
        if (at[i] >> 6 != 2) return 0xFFFD;
        code = code << 6 | (at[i] & 0x3Fu);
    }
    *size = more + 1;
    return code > 0x10FFFF ? 0xFFFD : code;
}

/* Write a character that may stand in a word as UTF-8, in lower case: its length, 0 for any other.
   A final sigma is a sigma. */
static int fold(uint32_t code, uint8_t *out) {
    uint32_t low = Py_UNICODE_TOLOWER(code);
    if (low == 0x3C2) low = 0x3C3;
    if (!Py_UNICODE_ISALNUM(low)) return 0;
    if (low < 0x80) return out[0] = (uint8_t)low, 1;
    int more = low < 0x800 ? 1 : low < 0x10000 ? 2 : 3;
    for (int i = more; i > 0; i--, low >>= 6) out[i] = (uint8_t)(0x80 | (low & 0x3F));
    out[0] = (uint8_t)((0xF0u << (3 - more)) | low);
    return more + 1;
}

/* The next word of a text; 0 when there is none. */
static inline int next_word(Words *words, Word *word) {
    const uint8_t *at = words->at, *end = words->end;
    uint64_t hash = 0, power = 1; /* power is 1 between words alone: FACTOR is odd */
    word->begin = at;
    while (at < end) {
        uint8_t value = folded[*at];
        if (value && value != NOT_ASCII) {
            if (power == 1) word->begin = at;
            hash += value * power;
            power *= FACTOR;
            at++;
            continue;
        }
        int size = 1, length = 0;
        uint8_t bytes[4];
        if (value == NOT_ASCII) length = fold(decode(at, end, &size), bytes);
        if (length && power == 1) word->begin = at;
        if (!length && power != 1) break;
        at += size;
        for (int i = 0; i < length; i++, power *= FACTOR) hash += (bytes[i] + UINT64_C(1)) * power;
    }
    word->hash = hash;
    word->end = words->at = at;
    return power != 1;
}

/* The number of strings data[offsets[i]:offsets[i + 1]], -1 with an exception. */
static int64_t count_texts(const Py_buffer *data, const Py_buffer *offsets) {
    const int64_t *edges = offsets->buf;
    int64_t n = offsets->len / ITEM - 1;
    int agree = n >= 0 && offsets->len % ITEM == 0 && edges[0] >= 0;
    for (int64_t i = 0; agree && i < n; i++) agree = edges[i] <= edges[i + 1];
    if (agree && edges[n] <= data->len) return n;
    PyErr_SetString(PyExc_ValueError, "data and offsets do not agree");
    return -1;
}

#endif
