/* Encoding text by byte-pair merges: the fast twin of ReferenceBPE.encode in gptwo/tokens/bpe.py.

   Text is cut into pieces (cut.h). Most pieces have been seen before: a table keyed by their bytes
   holds the ids. What is new is merged, by scanning for the earliest merge when it is short and by
   a heap when it is long. Symbols are spellings: two merges that spell alike make the same symbol,
   as in the reference, so any list of merges is encoded as the reference would.

   An Encoder is built once. Every call in progress has a cache of its own and runs without the
   interpreter's lock; caches are kept for later calls. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cut.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "keys of the cache are little-endian; elsewhere a library encodes"
#endif

#define NONE UINT32_MAX
#define MOST_SYMBOLS (1 << 21) /* two ids and a rank are packed into 64 bits */
#define BATCH 64               /* pieces cut before they are looked up: hides the wait for memory */
#define SHORT_KEY 15           /* bytes of a piece that lies in its slot */
#define LONG_KEY 255           /* bytes of the longest piece kept */
#define SCANNED 64             /* symbols merged by scanning; longer pieces by heap */
#define SLOTS (1u << 18)       /* 8 MiB for each call in progress */
#define WINDOW 4               /* slots where a key may lie, from its own on */
#define SPILL (1u << 20)       /* 4 MiB of ids and long keys that fit no slot */

/* The ids of a piece: up to 3 here, else at spill[ids[0]], followed by the bytes of a long key.
   A short key is its bytes and, on top, its length; a long one is a hash and LONG | length. */
typedef struct {
    uint64_t low, high;
    uint32_t ids[3];
    uint32_t count; /* 0 where the slot is free; with SPILLED where ids are in the spill */
} Slot;
#define LONG (0xFFull << 56)
#define SPILLED (1u << 31)

typedef struct Cache {
    struct Cache *next; /* in the list of idle caches */
    Slot *slots;
    uint32_t *spill;
    uint32_t spilled;
} Cache;

typedef struct {
    PyObject_HEAD
    uint64_t *pairs; /* a, b, rank by open addressing; all ones where free */
    uint32_t mask;
    uint32_t *made;          /* by each merge, of its rank */
    uint32_t *byte_ranks;    /* of pairs of bytes, at a << 8 | b: the first look at a piece */
    uint32_t symbol_of[256]; /* of each byte */
    uint32_t eot;
    Cache *idle;
} Encoder;

/* Where ids go: as many as bytes are encoded, and two that may be written past the last. */
typedef struct {
    void *ids; /* uint16 or uint32 */
    size_t count;
} Output;
#define PAST_LAST 2

/* ---- pairs ---- */

/* The slot of a pair: its own or a free one. */
static inline uint64_t *find_pair(const Encoder *e, uint32_t a, uint32_t b) {
    uint64_t key = (uint64_t)a << 21 | b, hash = key * 0x9E3779B97F4A7C15ull;
    uint32_t at = (uint32_t)(hash >> 40) & e->mask;
    while (e->pairs[at] != UINT64_MAX && e->pairs[at] >> 22 != key) at = (at + 1) & e->mask;
    return &e->pairs[at];
}

/* When the pair is merged, NONE for never. */
static inline uint32_t rank_of(const Encoder *e, uint32_t a, uint32_t b) {
    uint64_t pair = *find_pair(e, a, b);
    return pair == UINT64_MAX ? NONE : (uint32_t)(pair & 0x3FFFFF);
}

/* ---- merging one piece ---- */

/* Ids of a piece of at most SCANNED bytes. Each round applies the earliest merge, at all its places
   from the left; what it makes cannot be the same pair again, so ranks may be renewed on the way. */
static uint32_t merge_scanned(const Encoder *e, const uint8_t *piece, uint32_t n, uint32_t *ids) {
    uint32_t rank[SCANNED];
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = e->symbol_of[piece[i]];
        if (i) rank[i - 1] = e->byte_ranks[ids[i - 1] << 8 | ids[i]];
    }
    while (n > 1) {
        uint32_t first = 0;
        for (uint32_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[first]) first = i;
        uint32_t best = rank[first];
        if (best == NONE) break;
        for (uint32_t i = first; i + 1 < n; i++) {
            if (rank[i] != best) continue;
            ids[i] = e->made[best];
            n--;
            for (uint32_t k = i + 1; k < n; k++) {
                ids[k] = ids[k + 1];
                rank[k - 1] = rank[k];
            }
            if (i) rank[i - 1] = rank_of(e, ids[i - 1], ids[i]);
            if (i + 1 < n) rank[i] = rank_of(e, ids[i], ids[i + 1]);
        }
    }
    return n;
}

typedef struct {
    uint32_t rank, at;
} Due;

static inline int before(Due x, Due y) { return x.rank != y.rank ? x.rank < y.rank : x.at < y.at; }

static void push(Due *heap, size_t *count, Due due) {
    size_t i = (*count)++;
    while (i && before(due, heap[(i - 1) / 2])) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = due;
}

static Due pop(Due *heap, size_t *count) {
    Due top = heap[0], last = heap[--*count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *count) break;
        if (child + 1 < *count && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], last)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

typedef struct {
    uint32_t symbol, previous, next; /* next is n at the end; previous is NONE at the start */
    uint32_t rank;                   /* of the pair with the next */
} Link;

static inline void renew(const Encoder *e, Link *links, uint32_t at, uint32_t n) {
    uint32_t next = links[at].next;
    links[at].rank = next < n ? rank_of(e, links[at].symbol, links[next].symbol) : NONE;
}

/* Join the symbol at `at` with the next one; the pairs on both sides are due again. */
static uint32_t join(const Encoder *e, Link *links, uint32_t at, uint32_t n, uint32_t *changed) {
    uint32_t gone = links[at].next, after = links[gone].next, count = 0;
    links[at].symbol = e->made[links[at].rank];
    links[at].next = after;
    links[gone].rank = links[at].rank = NONE;
    if (after < n) links[after].previous = at;
    if (links[at].previous != NONE) {
        links[links[at].previous].rank = NONE;
        changed[count++] = links[at].previous;
    }
    changed[count++] = at;
    return count;
}

/* Ids of a long piece in n log n steps, by the rounds of `merge_scanned`: all places of one pair are
   joined from the left before the pairs they make are looked at. Returns 0 without memory. */
static uint32_t merge_heaped(const Encoder *e, const uint8_t *piece, uint32_t n, uint32_t *ids) {
    Link *links = malloc(n * sizeof(Link));
    Due *heap = malloc(3 * (size_t)n * sizeof(Due)); /* a join pushes two at most */
    uint32_t *changed = malloc(n * sizeof(uint32_t)), count = 0;
    size_t due = 0;
    if (links && heap && changed) {
        for (uint32_t i = 0; i < n; i++)
            links[i] = (Link){e->symbol_of[piece[i]], i - 1, i + 1, NONE}; /* 0 - 1 is NONE */
        for (uint32_t i = 0; i < n; i++) {
            renew(e, links, i, n);
            if (links[i].rank != NONE) push(heap, &due, (Due){links[i].rank, i});
        }
        while (due) {
            uint32_t rank = heap[0].rank, touched = 0;
            while (due && heap[0].rank == rank) {
                uint32_t at = pop(heap, &due).at;
                if (links[at].rank == rank) touched += join(e, links, at, n, changed + touched);
            }
            for (uint32_t k = 0; k < touched; k++) {
                if (links[changed[k]].rank != NONE) continue; /* twice in the list */
                renew(e, links, changed[k], n);
                if (links[changed[k]].rank != NONE)
                    push(heap, &due, (Due){links[changed[k]].rank, changed[k]});
            }
        }
        for (uint32_t i = 0; i < n; i = links[i].next) ids[count++] = links[i].symbol;
    }
    free(links);
    free(heap);
    free(changed);
    return count;
}

/* ---- the cache ---- */

static void cache_free(Cache *c) {
    if (!c) return;
    free(c->slots);
    free(c->spill);
    free(c);
}

static Cache *cache_new(void) {
    Cache *c = calloc(1, sizeof(Cache));
    if (!c) return NULL;
    c->slots = calloc(SLOTS + WINDOW, sizeof(Slot)); /* pages are taken as they are used */
    c->spill = malloc(SPILL * sizeof(uint32_t));
    if (c->slots && c->spill) return c;
    cache_free(c);
    return NULL;
}

typedef struct {
    uint64_t low, high;
    Slot *slot; /* the first where it may lie */
} Key;

static inline uint64_t mixed(uint64_t low, uint64_t high) {
    uint64_t x = (low ^ high * 0x9E3779B97F4A7C15ull) * 0xD6E8FEB86659FD93ull;
    return x ^ x >> 32;
}

/* The key of a piece. Sixteen bytes are read at once, if so many are before `readable`. */
static inline Key key_of(const Cache *c, const uint8_t *piece, size_t length,
                         const uint8_t *readable) {
    static const uint8_t cover[32] = {255, 255, 255, 255, 255, 255, 255, 255,
                                      255, 255, 255, 255, 255, 255, 255, 255};
    Key key;
    if (length <= SHORT_KEY) {
        uint8_t copy[16] = {0};
        if (readable - piece < 16) piece = memcpy(copy, piece, length);
        uint64_t kept;
        memcpy(&key.low, piece, 8);
        memcpy(&kept, cover + 16 - length, 8);
        key.low &= kept;
        memcpy(&key.high, piece + 8, 8);
        memcpy(&kept, cover + 24 - length, 8);
        key.high = (key.high & kept) | (uint64_t)length << 56;
    } else {
        uint64_t part = 0;
        key.low = length;
        for (size_t i = 0; i < length && length <= LONG_KEY; i += 8) {
            memcpy(&part, piece + i, length - i < 8 ? length - i : 8);
            key.low = mixed(key.low, part);
        }
        key.high = LONG | length;
    }
    key.slot = c->slots + (mixed(key.low, key.high) & (SLOTS - 1));
    return key;
}

static inline int same(const Slot *slot, const Key *key) {
    return !((slot->low ^ key->low) | (slot->high ^ key->high));
}

/* Keep the ids of a piece, in a free slot of its window or in place of another piece. */
static void keep(Cache *c, const Key *key, const uint8_t *piece, size_t length,
                 const uint32_t *ids, uint32_t count) {
    int is_long = length > SHORT_KEY, spills = is_long || count > 3;
    if (spills && c->spilled + count + LONG_KEY / 4 + 1 > SPILL) { /* full: begin anew */
        memset(c->slots, 0, (SLOTS + WINDOW) * sizeof(Slot));
        c->spilled = 0;
    }
    Slot *slot = key->slot, *last = slot + WINDOW;
    while (slot < last && slot->count) slot++;
    if (slot == last) slot = key->slot;
    *slot = (Slot){key->low, key->high, {0, 0, 0}, spills ? count | SPILLED : count};
    if (!spills) {
        memcpy(slot->ids, ids, count * sizeof(uint32_t));
        return;
    }
    slot->ids[0] = c->spilled;
    memcpy(c->spill + c->spilled, ids, count * sizeof(uint32_t));
    c->spilled += count;
    if (!is_long) return;
    memcpy(c->spill + c->spilled, piece, length);
    c->spilled += (uint32_t)(length + 3) / 4;
}

/* ---- text to ids ---- */

static inline void store(Output *out, size_t at, uint32_t id, int item) {
    if (item == 2) ((uint16_t *)out->ids)[at] = (uint16_t)id;
    else ((uint32_t *)out->ids)[at] = id;
}

static inline void store_all(Output *out, const uint32_t *ids, uint32_t count, int item) {
    for (uint32_t i = 0; i < count; i++) store(out, out->count + i, ids[i], item);
    out->count += count;
}

/* A piece that is not in the cache. Returns 0 without memory. */
static int encode_new(const Encoder *e, Cache *c, const Key *key, const uint8_t *piece,
                      size_t length, Output *out, int item) {
    uint32_t few[SCANNED], *ids = few, count;
    if (length <= SCANNED) {
        count = merge_scanned(e, piece, (uint32_t)length, few);
    } else {
        if (length >= NONE) return 0; /* 4 GiB without a cut */
        ids = malloc(length * sizeof(uint32_t));
        count = ids ? merge_heaped(e, piece, (uint32_t)length, ids) : 0;
    }
    if (count) store_all(out, ids, count, item);
    if (count && length <= LONG_KEY) keep(c, key, piece, length, ids, count);
    if (ids != few) free(ids);
    return count > 0;
}

/* A piece that is not in its first slot with its ids. Returns 0 without memory. */
static int encode_other(const Encoder *e, Cache *c, const Key *key, const uint8_t *piece,
                        size_t length, Output *out, int item) {
    for (const Slot *slot = key->slot, *last = slot + WINDOW; slot < last; slot++) {
        if (!same(slot, key)) continue;
        uint32_t count = slot->count & ~SPILLED;
        const uint32_t *ids = slot->count == count ? slot->ids : c->spill + slot->ids[0];
        if (length > SHORT_KEY && memcmp(ids + count, piece, length)) continue;
        store_all(out, ids, count, item);
        return 1;
    }
    return encode_new(e, c, key, piece, length, out, item);
}

/* Text [p, end) -> ids; bytes before `readable` may be read. Returns 0 without memory. */
static inline int encode_text(const Encoder *e, Cache *c, const uint8_t *p, const uint8_t *end,
                              const uint8_t *readable, Output *out, int item) {
    const uint8_t *borders[1 + BATCH + CUT_MORE], **ends = borders + 1;
    Key keys[BATCH + CUT_MORE];
    for (borders[0] = p; borders[0] < end;) {
        int count = cut(borders[0], end, ends, BATCH);
        for (int i = 0; i < count; i++) {
            keys[i] = key_of(c, borders[i], (size_t)(ends[i] - borders[i]), readable);
            __builtin_prefetch(keys[i].slot);
        }
        for (int i = 0; i < count; i++) {
            const Slot *slot = keys[i].slot;
            if (same(slot, &keys[i]) && slot->count <= 3) {
                for (int k = 0; k < 3; k++) store(out, out->count + k, slot->ids[k], item);
                out->count += slot->count;
            } else if (!encode_other(e, c, &keys[i], borders[i], (size_t)(ends[i] - borders[i]),
                                     out, item)) {
                return 0;
            }
        }
        borders[0] = borders[count];
    }
    return 1;
}

/* Documents data[offsets[i] .. offsets[i + 1]), each after an eot; their lengths in ids. */
static inline int encode_all(const Encoder *e, Cache *c, const Py_buffer *data,
                             const Py_buffer *offsets, int64_t *lengths, Output *out, int item) {
    const uint8_t *text = data->buf, *readable = text + data->len;
    const int64_t *offset = offsets->buf, *last = offset + offsets->len / 8 - 1;
    for (; offset < last; offset++) {
        size_t before = out->count;
        store(out, out->count++, e->eot, item);
        if (!encode_text(e, c, text + offset[0], text + offset[1], readable, out, item)) return 0;
        *lengths++ = (int64_t)(out->count - before);
    }
    return 1;
}

/* ---- the Python type ---- */

/* A cache for one call; called and given back with the interpreter's lock held. */
static Cache *borrow(Encoder *e) {
    Cache *c = e->idle;
    if (!c) return cache_new();
    e->idle = c->next;
    return c;
}

static void give_back(Encoder *e, Cache *c) {
    if (!c) return;
    c->next = e->idle;
    e->idle = c;
}

PyDoc_STRVAR(encode_doc, "encode(text: bytes) -> list[int]\n\nText as UTF-8, or any bytes -> ids.");

static PyObject *encode(Encoder *e, PyObject *args) {
    Py_buffer text;
    if (!PyArg_ParseTuple(args, "y*", &text)) return NULL;
    Output out = {malloc(((size_t)text.len + PAST_LAST) * sizeof(uint32_t)), 0};
    Cache *cache = borrow(e);
    int done = 0;
    if (cache && out.ids) {
        const uint8_t *start = text.buf, *end = start + text.len;
        Py_BEGIN_ALLOW_THREADS
        done = encode_text(e, cache, start, end, end, &out, 4);
        Py_END_ALLOW_THREADS
    }
    give_back(e, cache);
    PyBuffer_Release(&text);
    PyObject *list = done ? PyList_New((Py_ssize_t)out.count) : PyErr_NoMemory();
    for (size_t i = 0; list && i < out.count; i++) {
        PyObject *id = PyLong_FromUnsignedLong(((uint32_t *)out.ids)[i]);
        if (id) PyList_SET_ITEM(list, (Py_ssize_t)i, id);
        else Py_CLEAR(list);
    }
    free(out.ids);
    return list;
}

PyDoc_STRVAR(encode_documents_doc,
"encode_documents(data, offsets, ids, lengths) -> int\n\n"
"data: UTF-8 of all documents; offsets: int64, where each begins and the last ends. Written are\n"
"ids, each document's after an eot, uint16 or uint32 by how large the buffer is, and int64 lengths\n"
"in ids. The buffer of ids has room for all bytes and documents and 2 more. Returns how many ids.");

/* Bytes of an id, 0 where the buffers do not fit. */
static int item_that_fits(const Encoder *e, const Py_buffer *data, const Py_buffer *offsets,
                          const Py_buffer *ids, const Py_buffer *lengths) {
    const int64_t *offset = offsets->buf;
    Py_ssize_t count = offsets->len / 8 - 1;
    if (count < 0 || lengths->len != 8 * count || offset[0] < 0 || offset[count] > data->len)
        return 0;
    for (Py_ssize_t i = 0; i < count; i++)
        if (offset[i] > offset[i + 1]) return 0;
    Py_ssize_t room = offset[count] - offset[0] + count + PAST_LAST;
    if (ids->len == 2 * room) return e->eot > UINT16_MAX ? 0 : 2;
    return ids->len == 4 * room ? 4 : 0;
}

static PyObject *encode_documents(Encoder *e, PyObject *args) {
    Py_buffer data, offsets, ids, lengths;
    if (!PyArg_ParseTuple(args, "y*y*w*w*", &data, &offsets, &ids, &lengths)) return NULL;
    int item = item_that_fits(e, &data, &offsets, &ids, &lengths), done = 0;
    Cache *cache = item ? borrow(e) : NULL;
    Output out = {ids.buf, 0};
    if (cache) {
        Py_BEGIN_ALLOW_THREADS
        done = item == 2 ? encode_all(e, cache, &data, &offsets, lengths.buf, &out, 2)
                         : encode_all(e, cache, &data, &offsets, lengths.buf, &out, 4);
        Py_END_ALLOW_THREADS
    }
    give_back(e, cache);
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&ids);
    PyBuffer_Release(&lengths);
    if (done) return PyLong_FromSize_t(out.count);
    if (item) return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, "encode_documents: the buffers do not fit each other");
    return NULL;
}

/* The id of a token's bytes; NONE when no token is spelt so, with or without an error set. */
static uint32_t id_of(PyObject *ids, PyObject *token) {
    PyObject *id = PyDict_GetItemWithError(ids, token);
    return id ? (uint32_t)PyLong_AsUnsignedLong(id) : NONE;
}

/* Fill the tables of merges. Of a pair named twice the later counts, as in the reference; a pair of
   spellings that nothing makes never comes up. */
static int learn_pairs(Encoder *e, PyObject *merges, PyObject *tokens, PyObject *ids) {
    for (Py_ssize_t rank = 0; rank < PyList_GET_SIZE(merges); rank++) {
        PyObject *merge = PyList_GET_ITEM(merges, rank);
        if (!PyTuple_Check(merge) || PyTuple_GET_SIZE(merge) != 2) {
            PyErr_SetString(PyExc_TypeError, "Encoder: a merge is not a pair");
            return 0;
        }
        uint32_t a = id_of(ids, PyTuple_GET_ITEM(merge, 0));
        uint32_t b = id_of(ids, PyTuple_GET_ITEM(merge, 1));
        e->made[rank] = id_of(ids, PyList_GET_ITEM(tokens, 256 + rank));
        if (PyErr_Occurred()) return 0;
        if (a >= MOST_SYMBOLS || b >= MOST_SYMBOLS) continue; /* NONE: no such spelling */
        *find_pair(e, a, b) = ((uint64_t)a << 21 | b) << 22 | (uint64_t)rank;
        if (a < 256 && b < 256) e->byte_ranks[a << 8 | b] = (uint32_t)rank;
    }
    return 1;
}

static int learn_bytes(Encoder *e, PyObject *tokens) {
    for (uint32_t i = 0; i < 256; i++) {
        PyObject *token = PyList_GET_ITEM(tokens, i);
        if (!PyBytes_Check(token) || PyBytes_GET_SIZE(token) != 1) {
            PyErr_SetString(PyExc_ValueError, "Encoder: the first 256 tokens are no bytes");
            return 0;
        }
        e->symbol_of[(uint8_t)PyBytes_AS_STRING(token)[0]] = i;
    }
    return 1;
}

static PyObject *encoder_new(PyTypeObject *type, PyObject *args, PyObject *named) {
    PyObject *tokens, *merges, *ids;
    if (!PyArg_ParseTuple(args, "O!O!O!", &PyList_Type, &tokens, &PyList_Type, &merges,
                          &PyDict_Type, &ids))
        return NULL;
    size_t count = (size_t)PyList_GET_SIZE(merges), slots = 256;
    if ((size_t)PyList_GET_SIZE(tokens) != count + 256 || count + 256 >= MOST_SYMBOLS) {
        PyErr_SetString(PyExc_ValueError, "Encoder: tokens are not 256 bytes and the merges");
        return NULL;
    }
    Encoder *e = (Encoder *)type->tp_alloc(type, 0);
    if (!e) return NULL;
    while (slots < 2 * count) slots *= 2;
    e->mask = (uint32_t)slots - 1;
    e->eot = (uint32_t)count + 256;
    e->pairs = malloc(slots * sizeof(uint64_t));
    e->made = malloc((count + 1) * sizeof(uint32_t));
    e->byte_ranks = malloc(65536 * sizeof(uint32_t));
    if (!e->pairs || !e->made || !e->byte_ranks) {
        PyErr_NoMemory();
    } else {
        memset(e->pairs, 0xff, slots * sizeof(uint64_t)); /* free */
        memset(e->byte_ranks, 0xff, 65536 * sizeof(uint32_t)); /* NONE */
        if (learn_bytes(e, tokens) && learn_pairs(e, merges, tokens, ids)) return (PyObject *)e;
    }
    Py_DECREF(e);
    return NULL;
}

static void encoder_dealloc(Encoder *e) {
    for (Cache *c = e->idle, *next; c; c = next) {
        next = c->next;
        cache_free(c);
    }
    free(e->pairs);
    free(e->made);
    free(e->byte_ranks);
    Py_TYPE(e)->tp_free((PyObject *)e);
}

static PyMethodDef encoder_methods[] = {
    {"encode", (PyCFunction)encode, METH_VARARGS, encode_doc},
    {"encode_documents", (PyCFunction)encode_documents, METH_VARARGS, encode_documents_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(encoder_doc,
"Encoder(tokens, merges, ids)\n\n"
"tokens: list of bytes by id, the 256 bytes first; merges: list of pairs of bytes; ids: dict from\n"
"bytes to id. All three as in ReferenceBPE.");

static PyTypeObject EncoderType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "gptwo.native._encode.Encoder",
    .tp_basicsize = sizeof(Encoder),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = encoder_doc,
    .tp_new = encoder_new,
    .tp_dealloc = (destructor)encoder_dealloc,
    .tp_methods = encoder_methods,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_encode", NULL, -1, NULL,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__encode(void) {
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddType(made, &EncoderType) < 0) Py_CLEAR(made);
    return made;
}
