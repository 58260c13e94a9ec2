/* The word n-grams of texts, and which of them a set holds: the inner loops of gptwo/corpus/
   ngrams.py, where their plain twins are and where the filter is explained.

   A text is read once; only the hashes of its latest n words are held. The GIL is released. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "words.h"

enum { MOST_WORDS = 64, BLOCK_WORDS = 8, BLOCK_BITS = 64 * BLOCK_WORDS, BITS = 6, AHEAD = 8 };
static const uint64_t FILTER_SEED = 0xA0761D6478BD642Fu, LINE_SEED = 0xE7037ED1A0B428DBu;

static uint64_t word_inverse; /* WORD_FACTOR * word_inverse is 1 */

/* An n-gram of a text, as numpy reads it: `begin` and `end` count bytes from the text's beginning. */
typedef struct {
    uint64_t hash;
    int64_t text, word, begin, end;
} Gram;

typedef struct {
    Gram *at;
    int64_t size, room;
} Grams;

/* What to look for. Without blocks in the filter every n-gram is found. */
typedef struct {
    const uint64_t *filter;
    uint64_t blocks, lines, every;
    int64_t words;
    uint64_t last_power; /* WORD_FACTOR ^ (words - 1) */
} Wanted;

/* ---- the filter ---- */

/* The hash that says where the next line of a member is: a bijection, so that no two fall together. */
static inline uint64_t next_line(uint64_t hash) { return mix(hash ^ LINE_SEED); }

static inline const uint64_t *block_of(const uint64_t *filter, uint64_t blocks, uint64_t hash) {
    return filter + (((hash >> 32) * blocks) >> 32) * BLOCK_WORDS;
}

static inline int holds(const uint64_t *filter, uint64_t blocks, uint64_t lines, uint64_t hash) {
    for (; lines; lines--, hash = next_line(hash)) {
        const uint64_t *block = block_of(filter, blocks, hash);
        uint64_t places = mix(hash ^ FILTER_SEED);
        for (int i = 0; i < BITS; i++, places >>= 9) {
            uint64_t bit = places % BLOCK_BITS;
            if (!(block[bit / 64] >> bit % 64 & 1)) return 0;
        }
    }
    return 1;
}

static void put(uint64_t *filter, uint64_t blocks, uint64_t lines, uint64_t hash) {
    for (; lines; lines--, hash = next_line(hash)) {
        uint64_t *block = (uint64_t *)block_of(filter, blocks, hash);
        uint64_t places = mix(hash ^ FILTER_SEED);
        for (int i = 0; i < BITS; i++, places >>= 9) {
            uint64_t bit = places % BLOCK_BITS;
            block[bit / 64] |= UINT64_C(1) << bit % 64;
        }
    }
}

/* Have the lines of a member brought near while others are put. */
static inline void expect(const uint64_t *filter, uint64_t blocks, uint64_t lines, uint64_t hash) {
    for (; lines; lines--, hash = next_line(hash))
        __builtin_prefetch(block_of(filter, blocks, hash), 1);
}

/* The number of blocks of a filter, -1 with an exception. */
static int64_t count_blocks(const Py_buffer *filter) {
    int64_t size = BLOCK_WORDS * ITEM;
    if (filter->len % size == 0 && filter->len / size <= UINT32_MAX) return filter->len / size;
    PyErr_SetString(PyExc_ValueError, "a filter is up to 2^32 blocks of 64 bytes");
    return -1;
}

/* ---- n-grams ---- */

static int add(Grams *grams, Gram gram) {
    if (grams->size == grams->room) {
        int64_t room = grams->room * 2 + 64;
        Gram *grown = realloc(grams->at, (size_t)room * sizeof *grown);
        if (!grown) return 0;
        grams->at = grown;
        grams->room = room;
    }
    grams->at[grams->size++] = gram;
    return 1;
}

/* The n-grams of one text that are wanted; -1 without memory, else how many were looked up. */
static int64_t find_in_text(const Wanted *wanted, const uint8_t *start, const uint8_t *end,
                            int64_t text, Grams *grams) {
    uint64_t hashes[MOST_WORDS], sum = 0; /* rings of the latest n words; sum: as shingle() has it */
    const uint8_t *begins[MOST_WORDS];
    int64_t n = wanted->words, count = 0, place = 0, seen = 0;
    uint64_t power = 1;
    Words words = {start, end};
    Word word;
    while (next_word(&words, &word)) {
        if (count < n) {
            sum += word.hash * power;
            power *= WORD_FACTOR;
        } else {
            sum = (sum - hashes[place]) * word_inverse + word.hash * wanted->last_power;
        }
        hashes[place] = word.hash;
        begins[place] = word.begin;
        place = place + 1 == n ? 0 : place + 1;
        if (++count < n) continue;
        uint64_t hash = mix(sum);
        if (wanted->every > 1 && hash % wanted->every) continue;
        seen++;
        if (wanted->blocks && !holds(wanted->filter, wanted->blocks, wanted->lines, hash)) continue;
        Gram gram = {hash, text, count - n, begins[place] - start, word.end - start};
        if (!add(grams, gram)) return -1;
    }
    return seen;
}

/* ---- Python ---- */

static PyObject *pair(PyObject *a, PyObject *b) {
    PyObject *made = a && b ? PyTuple_Pack(2, a, b) : NULL;
    Py_XDECREF(a);
    Py_XDECREF(b);
    return made;
}

PyDoc_STRVAR(find_doc,
"find(data, offsets, words, filter, every, lines) -> grams, seen\n\n"
"Of the texts data[offsets[i]:offsets[i + 1]] (UTF-8; offsets int64) the n-grams of `words` words\n"
"whose hash is a multiple of `every`: those that the filter, filled with as many `lines`, may hold\n"
"(an empty one: all), five 64-bit numbers each (hash, text, word, begin, end), and how many each\n"
"text has (int64).");

static PyObject *find(PyObject *module, PyObject *args) {
    Py_buffer data, offsets, filter;
    long long words, every, lines;
    if (!PyArg_ParseTuple(args, "y*y*Ly*LL", &data, &offsets, &words, &filter, &every, &lines))
        return NULL;
    PyObject *found = NULL, *seen = NULL;
    int64_t n = count_texts(&data, &offsets), blocks = n < 0 ? -1 : count_blocks(&filter);
    if (blocks >= 0 && (words < 1 || words > MOST_WORDS || every < 1 || lines < 1)) {
        PyErr_SetString(PyExc_ValueError, "n-grams have 1 to 64 words, every and lines at least 1");
    } else if (blocks >= 0 && (seen = PyBytes_FromStringAndSize(NULL, n * ITEM))) {
        Grams grams = {0};
        Wanted wanted = {filter.buf, (uint64_t)blocks, (uint64_t)lines, (uint64_t)every, words, 1};
        for (int64_t i = 1; i < words; i++) wanted.last_power *= WORD_FACTOR;
        const int64_t *edges = offsets.buf;
        const uint8_t *text = data.buf;
        int64_t *counts = (int64_t *)PyBytes_AS_STRING(seen), last = 0;
        Py_BEGIN_ALLOW_THREADS
        for (int64_t i = 0; i < n && last >= 0; i++)
            last = counts[i] = find_in_text(&wanted, text + edges[i], text + edges[i + 1], i, &grams);
        Py_END_ALLOW_THREADS
        found = last < 0 ? PyErr_NoMemory()
                         : PyBytes_FromStringAndSize((char *)grams.at,
                                                     grams.size * (Py_ssize_t)sizeof(Gram));
        free(grams.at);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&filter);
    return pair(found, seen);
}

PyDoc_STRVAR(phrases_doc,
"phrases(data, offsets) -> hashes, words\n\n"
"Of each text the hash of all its words together (uint64) and their number (int64).");

static PyObject *phrases(PyObject *module, PyObject *args) {
    Py_buffer data, offsets;
    if (!PyArg_ParseTuple(args, "y*y*", &data, &offsets)) return NULL;
    PyObject *hashes = NULL, *counts = NULL;
    int64_t n = count_texts(&data, &offsets);
    if (n >= 0 && (hashes = PyBytes_FromStringAndSize(NULL, n * ITEM)) &&
        (counts = PyBytes_FromStringAndSize(NULL, n * ITEM))) {
        const int64_t *edges = offsets.buf;
        const uint8_t *text = data.buf;
        uint64_t *hash = (uint64_t *)PyBytes_AS_STRING(hashes);
        int64_t *count = (int64_t *)PyBytes_AS_STRING(counts);
        Py_BEGIN_ALLOW_THREADS
        for (int64_t i = 0; i < n; i++) {
            Words words = {text + edges[i], text + edges[i + 1]};
            Word word;
            uint64_t sum = 0, power = 1;
            for (count[i] = 0; next_word(&words, &word); count[i]++, power *= WORD_FACTOR)
                sum += word.hash * power;
            hash[i] = mix(sum);
        }
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    return pair(hashes, counts);
}

PyDoc_STRVAR(fill_doc,
"fill(filter, hashes, lines): put hashes (uint64), each into so many lines, into a filter, which\n"
"it changes.");

static PyObject *fill(PyObject *module, PyObject *args) {
    Py_buffer filter, hashes;
    long long lines;
    if (!PyArg_ParseTuple(args, "w*y*L", &filter, &hashes, &lines)) return NULL;
    int64_t blocks = lines < 1 ? 0 : count_blocks(&filter);
    if (blocks > 0) {
        const uint64_t *hash = hashes.buf;
        Py_BEGIN_ALLOW_THREADS
        for (int64_t i = 0, n = hashes.len / ITEM; i < n; i++) {
            if (i + AHEAD < n) expect(filter.buf, (uint64_t)blocks, (uint64_t)lines, hash[i + AHEAD]);
            put(filter.buf, (uint64_t)blocks, (uint64_t)lines, hash[i]);
        }
        Py_END_ALLOW_THREADS
    } else if (!blocks) {
        PyErr_SetString(PyExc_ValueError, "an empty filter, or no line of it, holds nothing");
    }
    PyBuffer_Release(&filter);
    PyBuffer_Release(&hashes);
    return blocks > 0 ? Py_NewRef(Py_None) : NULL;
}

static PyMethodDef methods[] = {
    {"find", find, METH_VARARGS, find_doc},
    {"phrases", phrases, METH_VARARGS, phrases_doc},
    {"fill", fill, METH_VARARGS, fill_doc},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_ngrams", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__ngrams(void) {
    prepare_words();
    word_inverse = WORD_FACTOR; /* right in its lowest 3 bits; each turn doubles how many are */
    for (int i = 0; i < 5; i++) word_inverse *= 2 - WORD_FACTOR * word_inverse;
    return PyModule_Create(&module);
}
