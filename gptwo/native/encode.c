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
#define BATCH 64            /* pieces cut before they are looked up: hides the wait for memory */
#define SHORT_KEY 15        /* bytes of a piece that lies in its slot */
#define LONG_KEY 255        /* bytes of the longest piece kept */
#define SCANNED 64          /* symbols merged by scanning; longer pieces by heap */
#define WAYS 4              /* slots where a key may lie: 128 bytes */
#define SETS (1u << 17)     /* 16 MiB of slots for each call in progress */
#define SPILL (1u << 20)    /* 4 MiB of ids and long keys that fit no slot */

typedef struct {
    uint32_t a, b, rank, made;
} Pair;

/* ids of a piece: up to 3 here, more at spill[ids[0]] followed by the bytes of a long key.
   A short key is its bytes and, on top, its length; a long one is a hash and LONG | length. */
typedef struct {
    uint64_t low, high;
    uint32_t ids[3];
    uint32_t count; /* 0 where the slot is free */
} Slot;
#define LONG (0xFFull << 56)

typedef struct Cache {
    struct Cache *next; /* in the list of idle caches */
    Slot *slots;
    uint32_t *spill;
    uint32_t spilled;
} Cache;

typedef struct {
    PyObject_HEAD
    Pair *pairs; /* open addressing; rank is NONE where free */
    uint32_t mask;
    uint32_t eot;
    uint32_t symbol_of[256]; /* of each byte */
    Cache *idle;
} Encoder;

typedef struct {
    uint8_t *ids;
    size_t count, room;
    int item; /* bytes of an id: 2 or 4 */
} Output;

/* ---- pairs ---- */

static inline uint32_t pair_hash(uint32_t a, uint32_t b) {
    uint64_t x = ((uint64_t)a << 32 | b) * 0x9E3779B97F4A7C15ull;
    return (uint32_t)(x >> 32) ^ (uint32_t)(x >> 15);
}

/* The slot of a pair: its own or a free one. */
static inline Pair *find_pair(const Encoder *e, uint32_t a, uint32_t b) {
    uint32_t at = pair_hash(a, b) & e->mask;
    while (e->pairs[at].rank != NONE && (e->pairs[at].a != a || e->pairs[at].b != b))
        at = (at + 1) & e->mask;
    return &e->pairs[at];
}

/* ---- merging one piece ---- */

/* Ids of a piece of at most SCANNED bytes. Each round applies the earliest merge, at all its places
   from the left; what it makes cannot be the same pair again, so ranks may be renewed on the way. */
static uint32_t merge_scanned(const Encoder *e, const uint8_t *piece, uint32_t n, uint32_t *ids) {
    uint32_t rank[SCANNED], made[SCANNED];
    for (uint32_t i = 0; i < n; i++) ids[i] = e->symbol_of[piece[i]];
    for (uint32_t i = 0; i + 1 < n; i++) {
        const Pair *pair = find_pair(e, ids[i], ids[i + 1]);
        rank[i] = pair->rank;
        made[i] = pair->made;
    }
    while (n > 1) {
        uint32_t first = 0;
        for (uint32_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[first]) first = i;
        uint32_t best = rank[first];
        if (best == NONE) break;
        for (uint32_t i = first; i + 1 < n; i++) {
            if (rank[i] != best) continue;
            ids[i] = made[i];
            n--;
            for (uint32_t k = i + 1; k < n; k++) {
                ids[k] = ids[k + 1];
                rank[k - 1] = rank[k];
                made[k - 1] = made[k];
            }
            for (uint32_t k = i ? i - 1 : 0; k <= i && k + 1 < n; k++) {
                const Pair *pair = find_pair(e, ids[k], ids[k + 1]);
                rank[k] = pair->rank;
                made[k] = pair->made;
            }
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
    uint32_t rank, made;             /* of the pair with the next */
} Link;

static inline void renew(const Encoder *e, Link *links, uint32_t at, uint32_t n) {
    const Pair *pair =
        links[at].next < n ? find_pair(e, links[at].symbol, links[links[at].next].symbol) : NULL;
    links[at].rank = pair ? pair->rank : NONE;
    links[at].made = pair ? pair->made : 0;
}

/* Join the symbol at `at` with the next one; the pairs on both sides are due again. */
static uint32_t join(Link *links, uint32_t at, uint32_t n, uint32_t *changed) {
    uint32_t gone = links[at].next, after = links[gone].next, count = 0;
    links[at].symbol = links[at].made;
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
            links[i] = (Link){e->symbol_of[piece[i]], i - 1, i + 1, NONE, 0}; /* 0 - 1 is NONE */
        for (uint32_t i = 0; i < n; i++) {
            renew(e, links, i, n);
            if (links[i].rank != NONE) push(heap, &due, (Due){links[i].rank, i});
        }
        while (due) {
            uint32_t rank = heap[0].rank, touched = 0;
            while (due && heap[0].rank == rank) {
                uint32_t at = pop(heap, &due).at;
                if (links[at].rank == rank) touched += join(links, at, n, changed + touched);
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
    c->slots = calloc((size_t)SETS * WAYS, sizeof(Slot)); /* pages are taken as they are used */
    c->spill = malloc(SPILL * sizeof(uint32_t));
    if (c->slots && c->spill) return c;
    cache_free(c);
    return NULL;
}

typedef struct {
    const uint8_t *start;
    size_t length;
    uint64_t low, high;
    uint32_t set;
} Piece;

static inline uint64_t mixed(uint64_t low, uint64_t high) {
    uint64_t x = (low ^ high * 0x9E3779B97F4A7C15ull) * 0xD6E8FEB86659FD93ull;
    return x ^ x >> 32;
}

/* The key of a piece. Sixteen bytes are read at once, if so many are before `readable`. */
static inline Piece keyed(const uint8_t *start, size_t length, const uint8_t *readable) {
    static const uint8_t cover[32] = {255, 255, 255, 255, 255, 255, 255, 255,
                                      255, 255, 255, 255, 255, 255, 255, 255};
    Piece piece = {start, length, 0, 0, 0};
    if (length <= SHORT_KEY) {
        uint64_t bytes[2] = {0, 0}, kept[2];
        memcpy(kept, cover + 16 - length, 16);
        if (readable - start >= 16) memcpy(bytes, start, 16);
        else memcpy(bytes, start, length);
        piece.low = bytes[0] & kept[0];
        piece.high = (bytes[1] & kept[1]) | (uint64_t)length << 56;
    } else {
        uint64_t hash = length, part = 0;
        for (size_t i = 0; i < length && length <= LONG_KEY; i += 8) {
            memcpy(&part, start + i, length - i < 8 ? length - i : 8);
            hash = mixed(hash, part);
        }
        piece.low = hash;
        piece.high = LONG | length;
    }
    piece.set = (uint32_t)mixed(piece.low, piece.high) & (SETS - 1);
    return piece;
}

static inline int holds(const Cache *c, const Slot *slot, const Piece *piece) {
    if (slot->low != piece->low || slot->high != piece->high) return 0;
    return piece->length <= SHORT_KEY ||
           !memcmp(c->spill + slot->ids[0] + slot->count, piece->start, piece->length);
}

/* Keep the ids of a piece, in a free slot of its set or in place of another. */
static void keep(Cache *c, const Piece *piece, const uint32_t *ids, uint32_t count) {
    Slot *set = c->slots + (size_t)piece->set * WAYS, *slot = NULL;
    int is_long = piece->length > SHORT_KEY, spills = is_long || count > 3;
    if (spills && c->spilled + count + LONG_KEY / 4 + 1 > SPILL) { /* full: begin anew */
        memset(c->slots, 0, (size_t)SETS * WAYS * sizeof(Slot));
        c->spilled = 0;
    }
    for (int k = 0; k < WAYS && !slot; k++)
        if (!set[k].count) slot = set + k;
    if (!slot) slot = set + (piece->low ^ piece->low >> 21) % WAYS;
    *slot = (Slot){piece->low, piece->high, {0, 0, 0}, count};
    if (!spills) {
        memcpy(slot->ids, ids, count * sizeof(uint32_t));
        return;
    }
    slot->ids[0] = c->spilled;
    memcpy(c->spill + c->spilled, ids, count * sizeof(uint32_t));
    c->spilled += count;
    if (!is_long) return;
    memcpy(c->spill + c->spilled, piece->start, piece->length);
    c->spilled += (uint32_t)(piece->length + 3) / 4;
}

/* ---- text to ids ---- */

/* Room for `more` ids, and three that may be written past the last. */
static int reserve(Output *out, size_t more) {
    size_t needed = out->count + more + 3;
    if (needed <= out->room) return 1;
    size_t room = needed + out->room / 2 + 64;
    uint8_t *ids = realloc(out->ids, room * (size_t)out->item);
    if (!ids) return 0;
    out->ids = ids;
    out->room = room;
    return 1;
}

static inline void store(Output *out, size_t at, uint32_t id, int item) {
    if (item == 2) ((uint16_t *)out->ids)[at] = (uint16_t)id;
    else ((uint32_t *)out->ids)[at] = id;
}

static inline void store_all(Output *out, const uint32_t *ids, uint32_t count, int item) {
    for (uint32_t i = 0; i < count; i++) store(out, out->count + i, ids[i], item);
    out->count += count;
}

/* A piece that was not in the cache. Returns 0 without memory. */
static int encode_new(const Encoder *e, Cache *c, const Piece *piece, Output *out, int item) {
    uint32_t few[SCANNED], *ids = few, count, n = (uint32_t)piece->length;
    if (piece->length <= SCANNED) {
        count = merge_scanned(e, piece->start, n, few);
    } else {
        if (piece->length >= NONE) return 0; /* 4 GiB without a cut */
        ids = malloc(piece->length * sizeof(uint32_t));
        count = ids ? merge_heaped(e, piece->start, n, ids) : 0;
    }
    if (count) store_all(out, ids, count, item);
    if (count && piece->length <= LONG_KEY) keep(c, piece, ids, count);
    if (ids != few) free(ids);
    return count > 0;
}

/* Text [p, end) -> ids; bytes before `readable` may be read. Returns 0 without memory. */
static inline int encode_text(const Encoder *e, Cache *c, const uint8_t *p, const uint8_t *end,
                              const uint8_t *readable, Output *out, int item) {
    Piece batch[BATCH];
    while (p < end) {
        const uint8_t *first = p;
        int count = 0;
        while (count < BATCH && p < end) {
            const uint8_t *next = piece_end(p, end);
            batch[count] = keyed(p, (size_t)(next - p), readable);
            __builtin_prefetch(c->slots + (size_t)batch[count++].set * WAYS);
            p = next;
        }
        if (!reserve(out, (size_t)(p - first))) return 0;
        for (int i = 0; i < count; i++) {
            const Slot *slot = c->slots + (size_t)batch[i].set * WAYS, *last = slot + WAYS;
            while (slot < last && !holds(c, slot, &batch[i])) slot++;
            if (slot == last) {
                if (!encode_new(e, c, &batch[i], out, item)) return 0;
            } else if (slot->count <= 3 && batch[i].length <= SHORT_KEY) {
                for (int k = 0; k < 3; k++) store(out, out->count + k, slot->ids[k], item);
                out->count += slot->count;
            } else {
                store_all(out, c->spill + slot->ids[0], slot->count, item);
            }
        }
    }
    return 1;
}

/* Documents data[offsets[i] .. offsets[i + 1]), each after an eot; their lengths in ids. */
static inline int encode_all(const Encoder *e, Cache *c, const uint8_t *data, size_t size,
                             const int64_t *offsets, size_t documents, int64_t *lengths,
                             Output *out, int item) {
    for (size_t i = 0; i < documents; i++) {
        size_t before = out->count;
        if (!reserve(out, 1)) return 0;
        store(out, out->count++, e->eot, item);
        if (!encode_text(e, c, data + offsets[i], data + offsets[i + 1], data + size, out, item))
            return 0;
        lengths[i] = (int64_t)(out->count - before);
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
    Output out = {.item = 4};
    Cache *cache = borrow(e);
    int done = 0;
    if (cache) {
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
"encode_documents(data, offsets, item) -> (ids, lengths)\n\n"
"data: UTF-8 of all documents; offsets: int64, where each begins and the last ends; item: bytes\n"
"of an id, 2 or 4. Returns bytes: ids, each document's after an eot, and int64 lengths in ids.");

static int offsets_fit(const int64_t *offsets, size_t count, Py_ssize_t size) {
    for (size_t i = 0; i + 1 < count; i++)
        if (offsets[i] > offsets[i + 1]) return 0;
    return count && offsets[0] >= 0 && offsets[count - 1] <= size;
}

static PyObject *encode_documents(Encoder *e, PyObject *args) {
    Py_buffer data, offsets;
    Output out = {0};
    if (!PyArg_ParseTuple(args, "y*y*i", &data, &offsets, &out.item)) return NULL;
    size_t count = (size_t)offsets.len / sizeof(int64_t), size = (size_t)data.len;
    PyObject *lengths = NULL, *ids = NULL;
    if (!offsets_fit(offsets.buf, count, data.len) || (out.item != 2 && out.item != 4) ||
        (out.item == 2 && e->eot > UINT16_MAX)) {
        PyErr_SetString(PyExc_ValueError, "encode_documents: offsets or item do not fit");
    } else if ((lengths = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)((count - 1) * 8)))) {
        int64_t *each = (int64_t *)PyBytes_AS_STRING(lengths);
        Cache *cache = borrow(e);
        int done = 0;
        if (cache) {
            Py_BEGIN_ALLOW_THREADS
            done = out.item == 2
                ? encode_all(e, cache, data.buf, size, offsets.buf, count - 1, each, &out, 2)
                : encode_all(e, cache, data.buf, size, offsets.buf, count - 1, each, &out, 4);
            Py_END_ALLOW_THREADS
        }
        give_back(e, cache);
        Py_ssize_t bytes = (Py_ssize_t)out.count * out.item;
        ids = done ? PyBytes_FromStringAndSize((char *)out.ids, bytes) : PyErr_NoMemory();
    }
    free(out.ids);
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    if (ids) return Py_BuildValue("NN", ids, lengths);
    Py_XDECREF(lengths);
    return NULL;
}

/* The id of a token's bytes; NONE when no token is spelt so, with or without an error set. */
static uint32_t id_of(PyObject *ids, PyObject *token) {
    PyObject *id = PyDict_GetItemWithError(ids, token);
    return id ? (uint32_t)PyLong_AsUnsignedLong(id) : NONE;
}

/* Fill the table of pairs. Of a pair named twice the later counts, as in the reference; a pair of
   spellings that nothing makes never comes up. */
static int learn_pairs(Encoder *e, PyObject *merges, PyObject *tokens, PyObject *ids) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(merges); i++) {
        PyObject *merge = PyList_GET_ITEM(merges, i);
        if (!PyTuple_Check(merge) || PyTuple_GET_SIZE(merge) != 2) {
            PyErr_SetString(PyExc_TypeError, "Encoder: a merge is not a pair");
            return 0;
        }
        uint32_t a = id_of(ids, PyTuple_GET_ITEM(merge, 0));
        uint32_t b = id_of(ids, PyTuple_GET_ITEM(merge, 1));
        uint32_t made = id_of(ids, PyList_GET_ITEM(tokens, 256 + i));
        if (PyErr_Occurred()) return 0;
        if (a != NONE && b != NONE) *find_pair(e, a, b) = (Pair){a, b, (uint32_t)i, made};
    }
    return 1;
}

static PyObject *encoder_new(PyTypeObject *type, PyObject *args, PyObject *named) {
    PyObject *tokens, *merges, *ids;
    if (!PyArg_ParseTuple(args, "O!O!O!", &PyList_Type, &tokens, &PyList_Type, &merges,
                          &PyDict_Type, &ids))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(merges);
    if (PyList_GET_SIZE(tokens) != count + 256 || count > INT32_MAX / 4) {
        PyErr_SetString(PyExc_ValueError, "Encoder: tokens are not 256 bytes and the merges");
        return NULL;
    }
    Encoder *e = (Encoder *)type->tp_alloc(type, 0);
    if (!e) return NULL;
    size_t size = 256;
    while (size < 2 * (size_t)count) size *= 2;
    e->mask = (uint32_t)size - 1;
    e->eot = (uint32_t)PyList_GET_SIZE(tokens);
    e->pairs = malloc(size * sizeof(Pair));
    if (e->pairs) {
        memset(e->pairs, 0xff, size * sizeof(Pair)); /* rank NONE */
        for (uint32_t i = 0; i < 256; i++) {
            PyObject *token = PyList_GET_ITEM(tokens, i);
            if (!PyBytes_Check(token) || PyBytes_GET_SIZE(token) != 1) {
                PyErr_SetString(PyExc_ValueError, "Encoder: the first 256 tokens are no bytes");
                break;
            }
            e->symbol_of[(uint8_t)PyBytes_AS_STRING(token)[0]] = i;
        }
        if (!PyErr_Occurred() && learn_pairs(e, merges, tokens, ids)) return (PyObject *)e;
    } else {
        PyErr_NoMemory();
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
