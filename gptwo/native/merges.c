/* Learning BPE merges: the inner loop of gptwo/tokens/learn.py. Its plain twin is
   gptwo/tokens/merges.py.

   The distinct pieces of a corpus lie one after the other in `cells`: the count of a piece in two
   cells, an EDGE, a cell for each byte, an EDGE. A symbol fills as many cells as it has bytes, and
   its id stands in the first and in the last of them: so both neighbours of a place are found at
   once, and merging moves nothing.

   Each pair of adjacent symbols knows its count and the places where it was seen. A step takes the
   most frequent pair, writes a new symbol at its places, and corrects the counts of the pairs
   around. Pairs that hold the new symbol are all made in that step, so later on counts only fall.
   The more frequent pairs are in a heap, with counts that may have fallen since and are put right
   as they surface; when it is empty the rest is looked through for more. Counts have 64 bits. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { EDGE = -1, INSIDE = -2 }; /* cells of no symbol: beside a piece, where a symbol once began */
enum { BYTES = 256, FEW = 2, AHEAD = 8 };
enum { HEADER = 3, NEAR = 64 }; /* cells before a piece; symbols a look back for them may pass */
enum { FILLING, MERGING, BUSY, FAILED }; /* a learner is BUSY while a thread has left the GIL */
#define SLICE 1000000 /* places after which merge() returns, so that one can be asked to stop */

typedef struct {
    int32_t a, b;
    int64_t count;
    union {
        uint32_t few[FEW];
        uint32_t *many; /* where `room` is not 0 */
    } places; /* first cells, in order; some may no longer hold the pair */
    uint32_t filled, room;
} Pair;

typedef struct {
    int64_t count;
    int32_t a, b;
} Candidate;

typedef struct {
    uint32_t size;  /* in bytes */
    uint32_t spelt; /* where `bytes` spells it */
    int32_t before; /* the pair (this, made) of the current step, unless below its first */
    int32_t after;  /* the pair (made, this), likewise */
} Symbol;

typedef struct {
    PyObject_HEAD
    int greatest; /* the tie rule: the greatest bytes first, else the smallest ids */
    int state;
    int32_t id_of[BYTES];
    int32_t *cells;
    uint8_t *bytes; /* of each cell, for the tie rule by bytes; first those of ids 0..255 */
    int64_t cell_count, cell_room;
    uint32_t *long_pieces; /* where those begin that are longer than NEAR, in order */
    int64_t long_count, long_room;
    Pair *pairs;
    int64_t pair_count, pair_room;
    int32_t *byte_pairs; /* [256][256]: the pairs of bytes, -1 where there is none */
    int32_t *table;      /* open addressing over `pairs`, a power of two */
    int64_t table_size;
    int64_t least; /* the heap has every pair with this count or more */
    Candidate *heap;
    int64_t heap_count, heap_room;
    Symbol *symbols;
    int64_t symbol_count, symbol_room;
} Learner;

/* Room for `wanted` items of `width` bytes in *memory; 0 when there is none. */
static int reserve(void *memory, int64_t *room, int64_t wanted, size_t width) {
    void *old, *more;
    if (wanted <= *room) return 1;
    int64_t grown = *room * 2 > wanted ? *room * 2 : wanted;
    memcpy(&old, memory, sizeof old);
    more = realloc(old, (size_t)grown * width);
    if (!more) return 0;
    memcpy(memory, &more, sizeof more);
    *room = grown;
    return 1;
}

/* ---- pairs ---- */

static uint64_t mix(int32_t a, int32_t b) {
    uint64_t x = ((uint64_t)(uint32_t)a << 32) | (uint32_t)b;
    x ^= x >> 31;
    x *= 0x9E3779B97F4A7C15ull;
    return x ^ (x >> 29);
}

static void enter(Learner *s, int32_t pair) {
    int64_t slot = mix(s->pairs[pair].a, s->pairs[pair].b) & (s->table_size - 1);
    while (s->table[slot] >= 0) slot = (slot + 1) & (s->table_size - 1);
    s->table[slot] = pair;
}

static int grow_table(Learner *s) {
    int64_t size = s->table_size ? s->table_size * 2 : 1 << 17;
    int32_t *table = malloc(size * sizeof *table);
    if (!table) return 0;
    memset(table, 0xff, size * sizeof *table);
    free(s->table);
    s->table = table;
    s->table_size = size;
    for (int64_t i = 0; i < s->pair_count; i++) enter(s, (int32_t)i);
    return 1;
}

/* A pair not seen before; -1 without memory. */
static int32_t new_pair(Learner *s, int32_t a, int32_t b) {
    if (s->pair_count == INT32_MAX) return -1;
    if (!reserve(&s->pairs, &s->pair_room, s->pair_count + 1, sizeof(Pair))) return -1;
    if (s->pair_count * 4 >= s->table_size * 3 && !grow_table(s)) return -1;
    s->pairs[s->pair_count] = (Pair){.a = a, .b = b};
    enter(s, (int32_t)s->pair_count);
    return (int32_t)s->pair_count++;
}

/* A pair that exists. */
static Pair *find(Learner *s, int32_t a, int32_t b) {
    int64_t slot = mix(a, b) & (s->table_size - 1);
    for (;; slot = (slot + 1) & (s->table_size - 1)) {
        Pair *pair = &s->pairs[s->table[slot]];
        if (pair->a == a && pair->b == b) return pair;
    }
}

static uint32_t *places_of(Pair *pair) {
    return pair->room ? pair->places.many : pair->places.few;
}

static int add_place(Pair *pair, uint32_t place, int64_t count) {
    if (pair->filled == (pair->room ? pair->room : FEW)) {
        int64_t room = (int64_t)pair->filled + pair->filled / 2 + 1;
        if (room > UINT32_MAX) room = UINT32_MAX; /* as many cells as there can be */
        uint32_t *many = realloc(pair->room ? pair->places.many : NULL, room * sizeof *many);
        if (!many) return 0;
        if (!pair->room) memcpy(many, pair->places.few, sizeof pair->places.few);
        pair->places.many = many;
        pair->room = (uint32_t)room;
    }
    places_of(pair)[pair->filled++] = place;
    pair->count += count;
    return 1;
}

static void forget(Pair *pair) {
    if (pair->room) free(pair->places.many);
    pair->filled = pair->room = 0;
}

static void lose(Pair *pair, int64_t count) {
    pair->count -= count;
    if (!pair->count) forget(pair);
}

/* ---- the heap ---- */

static int compare_spelling(Learner *s, int32_t a, int32_t b) {
    Symbol x = s->symbols[a], y = s->symbols[b];
    int order = memcmp(s->bytes + x.spelt, s->bytes + y.spelt, x.size < y.size ? x.size : y.size);
    return order ? order : (x.size > y.size) - (x.size < y.size);
}

/* Whether x comes before y: more frequent, then by the tie rule. */
static int precedes(Learner *s, const Candidate *x, const Candidate *y) {
    if (x->count != y->count) return x->count > y->count;
    if (s->greatest) {
        int order = compare_spelling(s, x->a, y->a);
        return (order ? order : compare_spelling(s, x->b, y->b)) > 0;
    }
    return x->a != y->a ? x->a < y->a : x->b < y->b;
}

static int push(Learner *s, const Pair *pair) {
    if (!reserve(&s->heap, &s->heap_room, s->heap_count + 1, sizeof(Candidate))) return 0;
    Candidate new = {pair->count, pair->a, pair->b};
    int64_t i = s->heap_count++;
    while (i && precedes(s, &new, &s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = new;
    return 1;
}

static void sink(Learner *s, Candidate moved) {
    int64_t i = 0;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= s->heap_count) break;
        if (child + 1 < s->heap_count && precedes(s, &s->heap[child + 1], &s->heap[child])) child++;
        if (!precedes(s, &s->heap[child], &moved)) break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = moved;
}

/* Fill the empty heap with the most frequent half or so, by count, of what is left. */
static int refill(Learner *s) {
    int64_t most = 0;
    for (int64_t i = 0; i < s->pair_count; i++)
        if (s->pairs[i].count > most) most = s->pairs[i].count;
    s->least = most / 2 + 1;
    for (int64_t i = 0; i < s->pair_count; i++)
        if (s->pairs[i].count >= s->least && !push(s, &s->pairs[i])) return 0;
    return 1;
}

/* The next pair to merge, off the heap, or NULL: no pair is left, or (`fine` is 0) no memory. */
static Pair *best(Learner *s, int *fine) {
    for (;;) {
        if (!s->heap_count && (!(*fine = refill(s)) || !s->heap_count)) return NULL;
        Candidate top = s->heap[0];
        Pair *pair = find(s, top.a, top.b);
        if (pair->count == top.count || pair->count < s->least) {
            Candidate last = s->heap[--s->heap_count];
            if (s->heap_count) sink(s, last);
            if (pair->count == top.count) return pair;
        } else {
            top.count = pair->count;
            sink(s, top);
        }
    }
}

/* ---- pieces in ---- */

/* One more piece, of at least two bytes. */
static int add_piece(Learner *s, const uint8_t *text, int64_t length, int64_t count) {
    int64_t begin = s->cell_count + HEADER, end = begin + length + 1, room = s->cell_room;
    if (end > UINT32_MAX) return 0;
    if (s->greatest) {
        if (!reserve(&s->bytes, &room, end, 1)) return 0;
        memcpy(s->bytes + begin, text, length);
    }
    if (!reserve(&s->cells, &s->cell_room, end, sizeof *s->cells)) return 0;
    if (length > NEAR) {
        if (!reserve(&s->long_pieces, &s->long_room, s->long_count + 1, sizeof *s->long_pieces))
            return 0;
        s->long_pieces[s->long_count++] = (uint32_t)begin;
    }
    int32_t *cells = s->cells + begin, a = s->id_of[text[0]];
    memcpy(cells - HEADER, &count, sizeof count);
    cells[-1] = EDGE;
    cells[0] = a;
    for (int64_t i = 1; i < length; i++) {
        int32_t b = s->id_of[text[i]], *pair = &s->byte_pairs[a * BYTES + b];
        if (*pair < 0) *pair = new_pair(s, a, b);
        if (*pair < 0 || !add_place(&s->pairs[*pair], (uint32_t)(begin + i - 1), count)) return 0;
        cells[i] = a = b;
    }
    cells[length] = EDGE;
    s->cell_count = end;
    return 1;
}

/* The count of the piece that has a symbol at `at`. */
static int64_t count_at(const Learner *s, int64_t at) {
    int64_t count;
    int32_t before;
    for (int steps = 0; (before = s->cells[at - 1]) != EDGE && steps < NEAR; steps++)
        at -= s->symbols[before].size;
    if (before != EDGE) { /* far inside a long piece: the last that begins before */
        int64_t low = 0, high = s->long_count;
        while (high - low > 1) {
            int64_t middle = (low + high) / 2;
            if (s->long_pieces[middle] <= at) low = middle;
            else high = middle;
        }
        at = s->long_pieces[low];
    }
    memcpy(&count, s->cells + at - HEADER, sizeof count);
    return count;
}

/* ---- merging ---- */

static int new_symbol(Learner *s, uint32_t size, uint32_t spelt) {
    if (s->symbol_count == INT32_MAX ||
        !reserve(&s->symbols, &s->symbol_room, s->symbol_count + 1, sizeof(Symbol)))
        return 0;
    s->symbols[s->symbol_count++] = (Symbol){size, spelt, -1, -1};
    return 1;
}

/* Count the pair (a, b), new in this step, at one more place. `pair` remembers which it is. */
static int count_new(Learner *s, int32_t *pair, int64_t first, Candidate seen, int64_t place) {
    if (*pair < first) *pair = new_pair(s, seen.a, seen.b);
    return *pair >= 0 && add_place(&s->pairs[*pair], (uint32_t)place, seen.count);
}

/* Write `made` over (a, b) at one place, if they are still there. */
static int merge_place(Learner *s, int64_t at, int32_t a, int32_t b, int32_t made, int64_t first) {
    int32_t *cells = s->cells;
    int64_t right = at + s->symbols[a].size;
    if (cells[at] != a || cells[right] != b) return 1;
    int64_t end = right + s->symbols[b].size, count = count_at(s, at);
    cells[right] = INSIDE; /* an old place of the right symbol must not find it again */
    cells[at] = cells[end - 1] = made;
    int32_t before = cells[at - 1], after = cells[end];
    if (before >= 0) {
        Candidate seen = {count, before, made};
        int64_t place = at - s->symbols[before].size;
        if (!count_new(s, &s->symbols[before].before, first, seen, place)) return 0;
    }
    Candidate seen = {count, made, after};
    return after < 0 || count_new(s, &s->symbols[after].after, first, seen, at);
}

/* What the new pairs have gained others lost: (made, y) from (b, y), (x, made) from (x, a). The
   former come first: one of the latter is (made, made), taken from (made, a), which is new itself
   and must not shrink before it has been taken from (b, a). */
static int settle(Learner *s, int32_t a, int32_t b, int32_t made, int64_t first) {
    for (int64_t i = first; i < s->pair_count; i++)
        if (s->pairs[i].b != made) lose(find(s, b, s->pairs[i].b), s->pairs[i].count);
    for (int64_t i = first; i < s->pair_count; i++)
        if (s->pairs[i].b == made) lose(find(s, s->pairs[i].a, a), s->pairs[i].count);
    Pair *merged = find(s, a, b);
    merged->count = 0;
    forget(merged);
    for (int64_t i = first; i < s->pair_count; i++)
        if (s->pairs[i].count >= s->least && !push(s, &s->pairs[i])) return 0;
    return 1;
}

/* One merge. `worked` counts the places looked at. */
static int step(Learner *s, Pair *pair, int64_t *worked) {
    Pair old = *pair; /* takes the places along: the pairs may move */
    pair->filled = pair->room = 0;
    uint32_t *places = places_of(&old);
    int32_t made = (int32_t)s->symbol_count;
    int64_t first = s->pair_count;
    int fine = new_symbol(s, s->symbols[old.a].size + s->symbols[old.b].size, places[0]);
    for (uint32_t k = 0; k < old.filled && fine; k++) {
        if (k + AHEAD < old.filled) __builtin_prefetch(&s->cells[places[k + AHEAD]], 1);
        fine = merge_place(s, places[k], old.a, old.b, made, first);
    }
    *worked += old.filled;
    forget(&old);
    return fine && settle(s, old.a, old.b, made, first);
}

/* Up to `most` merges into `merges` (pairs of ids); returns how many, -1 without memory. */
static int64_t merge(Learner *s, int64_t most, int32_t *merges) {
    int64_t done = 0, worked = 0;
    int fine = 1;
    for (Pair *pair; done < most && worked < SLICE && (pair = best(s, &fine)); done++) {
        merges[2 * done] = pair->a;
        merges[2 * done + 1] = pair->b;
        if (!step(s, pair, &worked)) return -1;
    }
    return fine ? done : -1;
}

/* ---- the Python type ---- */

static int start(Learner *s, const uint8_t *order) {
    s->byte_pairs = malloc(BYTES * BYTES * sizeof *s->byte_pairs);
    if (!s->byte_pairs || !reserve(&s->cells, &s->cell_room, BYTES, sizeof *s->cells)) return 0;
    memset(s->byte_pairs, 0xff, BYTES * BYTES * sizeof *s->byte_pairs);
    if (s->greatest && !(s->bytes = malloc(BYTES))) return 0;
    for (int i = 0; i < BYTES; i++) {
        s->id_of[order[i]] = i;
        s->cells[i] = EDGE;
        if (s->greatest) s->bytes[i] = order[i];
        if (!new_symbol(s, 1, i)) return 0;
    }
    s->cell_count = BYTES;
    return 1;
}

static PyObject *learner_new(PyTypeObject *type, PyObject *args, PyObject *kinds) {
    Py_buffer order;
    int greatest;
    if (!PyArg_ParseTuple(args, "y*p", &order, &greatest)) return NULL;
    Learner *s = NULL;
    if (order.len != BYTES) {
        PyErr_SetString(PyExc_ValueError, "Learner: order must hold the 256 bytes");
    } else if ((s = (Learner *)type->tp_alloc(type, 0))) {
        s->greatest = greatest;
        if (!start(s, order.buf)) {
            PyErr_NoMemory();
            Py_CLEAR(s);
        }
    }
    PyBuffer_Release(&order);
    return (PyObject *)s;
}

static void learner_free(Learner *s) {
    PyTypeObject *type = Py_TYPE(s);
    for (int64_t i = 0; i < s->pair_count; i++) forget(&s->pairs[i]);
    free(s->pairs);
    free(s->cells);
    free(s->bytes);
    free(s->long_pieces);
    free(s->byte_pairs);
    free(s->table);
    free(s->heap);
    free(s->symbols);
    type->tp_free(s);
    Py_DECREF(type);
}

static int agree(const Py_buffer *data, const Py_buffer *offsets, const Py_buffer *counts) {
    const int64_t *edges = offsets->buf, *times = counts->buf;
    int64_t n = counts->len / (int64_t)sizeof *times;
    if (counts->len % sizeof *times || offsets->len != (n + 1) * (int64_t)sizeof *edges) return 0;
    if (edges[0] < 0 || edges[n] > data->len) return 0;
    for (int64_t i = 0; i < n; i++)
        if (edges[i] > edges[i + 1] || times[i] < 1) return 0;
    return 1;
}

PyDoc_STRVAR(add_doc,
"add(data, offsets, counts)\n\n"
"More distinct pieces: data[offsets[i]:offsets[i + 1]] occurs counts[i] times (int64, above 0).");

static PyObject *learner_add(Learner *s, PyObject *args) {
    Py_buffer data, offsets, counts;
    if (!PyArg_ParseTuple(args, "y*y*y*", &data, &offsets, &counts)) return NULL;
    int fine = 1;
    if (s->state != FILLING) {
        PyErr_SetString(PyExc_ValueError, "Learner.add: it is busy, or merging has begun");
    } else if (!agree(&data, &offsets, &counts)) {
        PyErr_SetString(PyExc_ValueError, "Learner.add: data, offsets and counts do not agree");
    } else {
        const int64_t *edges = offsets.buf, *times = counts.buf;
        int64_t n = counts.len / (int64_t)sizeof *times;
        s->state = BUSY;
        Py_BEGIN_ALLOW_THREADS
        for (int64_t i = 0; i < n && fine; i++) {
            int64_t size = edges[i + 1] - edges[i];
            if (size > 1) fine = add_piece(s, (uint8_t *)data.buf + edges[i], size, times[i]);
        }
        Py_END_ALLOW_THREADS
        s->state = fine ? FILLING : FAILED;
        if (!fine) PyErr_NoMemory();
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&counts);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(merge_doc,
"merge(most) -> bytes\n\n"
"The next merges as int32 pairs of ids: at most `most`, fewer when they take long, none when no\n"
"pair is left. Merge k of all makes the id 256 + k.");

static PyObject *learner_merge(Learner *s, PyObject *args) {
    long long most;
    if (!PyArg_ParseTuple(args, "L", &most)) return NULL;
    if (s->state == BUSY || s->state == FAILED || most < 1 || most > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "Learner.merge: busy or broken, or `most` is absurd");
        return NULL;
    }
    int64_t done = -1;
    int32_t *merges = malloc(most * 2 * sizeof *merges);
    s->state = BUSY;
    Py_BEGIN_ALLOW_THREADS
    if (merges) done = merge(s, most, merges);
    Py_END_ALLOW_THREADS
    s->state = done < 0 ? FAILED : MERGING;
    PyObject *result = NULL;
    if (done < 0) PyErr_NoMemory();
    else result = PyBytes_FromStringAndSize((char *)merges, done * 2 * sizeof *merges);
    free(merges);
    return result;
}

static PyMethodDef methods[] = {
    {"add", (PyCFunction)learner_add, METH_VARARGS, add_doc},
    {"merge", (PyCFunction)learner_merge, METH_VARARGS, merge_doc},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot slots[] = {
    {Py_tp_doc, "Learner(order, greatest): learns merges. order: the byte of each id 0..255."},
    {Py_tp_new, learner_new},
    {Py_tp_dealloc, learner_free},
    {Py_tp_methods, methods},
    {0, NULL},
};
static PyType_Spec spec = {
    "gptwo.native._merges.Learner", sizeof(Learner), 0, Py_TPFLAGS_DEFAULT, slots,
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_merges", NULL, 0, NULL,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__merges(void) {
    PyObject *made = PyModule_Create(&module), *type = made ? PyType_FromSpec(&spec) : NULL;
    if (!type || PyModule_AddObjectRef(made, "Learner", type)) Py_CLEAR(made);
    Py_XDECREF(type);
    return made;
}
