/* Counting the pieces of texts: the inner loop of gptwo/tokens/count.py, where its plain twin is.

   Texts come as Arrow lays strings out (bytes, and where each string begins), are cut by cut.h and
   counted in a hash table. No Python object is made for a text or a piece. Counts have 64 bits. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cut.h"

enum { SHORT = 15, LONG = 0xFF }; /* bytes of a piece that fits its key; the mark of other keys */
#define ITEM ((Py_ssize_t)sizeof(int64_t))
enum { FREE, BUSY, FAILED };      /* of a counter: BUSY while a thread has left the GIL */

/* The bytes of a short piece, filled up with zeros, its length in the top byte. Of a longer one the
   hash and the place in `arena`. High is zero for no piece. */
typedef struct {
    uint64_t low, high;
} Key;

typedef struct {
    Key key;
    int64_t count;
} Slot;

typedef struct {
    PyObject_HEAD
    int state;
    int bits; /* the table has 2^bits slots */
    Slot *slots;
    int64_t pieces, piece_bytes;
    uint8_t *arena; /* of each long piece its length, 8 bytes, and its bytes */
    int64_t arena_size, arena_room;
} Counter;

static const uint64_t ODD = 0x9E3779B97F4A7C15u, OTHER_ODD = 0xD6E8FEB86659FD93u;

static uint64_t hash_long(const uint8_t *p, int64_t size) {
    uint64_t hash = (uint64_t)size, word = 0;
    for (; size >= 8; p += 8, size -= 8) {
        memcpy(&word, p, 8);
        hash = (hash ^ word) * ODD;
        hash ^= hash >> 29;
    }
    word = 0;
    memcpy(&word, p, size);
    hash = (hash ^ word) * OTHER_ODD;
    return hash ^ hash >> 32;
}

/* The key of the piece p, of `size` bytes, in a buffer that goes on to `end`. */
static inline Key key_of(const uint8_t *p, int64_t size, const uint8_t *end) {
    Key key = {0, 0};
    if (size > SHORT) {
        key.low = hash_long(p, size);
        key.high = (uint64_t)LONG << 56;
        return key;
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (end - p >= (int64_t)sizeof key) { /* the usual case without a loop over the bytes */
        memcpy(&key, p, sizeof key);
        if (size < 8) {
            key.low &= ((uint64_t)1 << 8 * size) - 1;
            key.high = 0;
        } else {
            key.high &= ((uint64_t)1 << 8 * (size - 8)) - 1;
        }
        key.high |= (uint64_t)size << 56;
        return key;
    }
#endif
    for (int64_t i = 0; i < size; i++) {
        if (i < 8) key.low |= (uint64_t)p[i] << 8 * i;
        else key.high |= (uint64_t)p[i] << 8 * (i - 8);
    }
    key.high |= (uint64_t)size << 56;
    return key;
}

static inline uint64_t hash_of(Key key) {
    uint64_t high = key.high >> 56 == LONG ? 0 : key.high;
    uint64_t hash = (key.low ^ (high * OTHER_ODD)) * ODD;
    return hash ^ hash >> 32;
}

static inline int is_long(Key key) { return key.high >> 56 == LONG; }

static const uint8_t *long_piece(const Counter *s, Key key, int64_t *size) {
    const uint8_t *held = s->arena + (key.high & (((uint64_t)1 << 56) - 1));
    memcpy(size, held, sizeof *size);
    return held + sizeof *size;
}

static int grow(Counter *s) {
    int bits = s->slots ? s->bits + 1 : 12;
    Slot *slots = calloc((size_t)1 << bits, sizeof *slots);
    if (!slots) return 0;
    uint64_t mask = ((uint64_t)1 << bits) - 1;
    for (int64_t i = 0; s->slots && i < (int64_t)1 << s->bits; i++) {
        if (!s->slots[i].key.high) continue;
        uint64_t at = hash_of(s->slots[i].key) & mask;
        while (slots[at].key.high) at = (at + 1) & mask;
        slots[at] = s->slots[i];
    }
    free(s->slots);
    s->slots = slots;
    s->bits = bits;
    return 1;
}

/* A long piece into the arena; its place, or -1 without memory. */
static int64_t keep(Counter *s, const uint8_t *p, int64_t size) {
    int64_t at = s->arena_size, end = at + (int64_t)sizeof size + size;
    if (end > s->arena_room) {
        int64_t room = s->arena_room * 2 > end ? s->arena_room * 2 : end;
        uint8_t *arena = realloc(s->arena, room);
        if (!arena) return -1;
        s->arena = arena;
        s->arena_room = room;
    }
    memcpy(s->arena + at, &size, sizeof size);
    memcpy(s->arena + at + sizeof size, p, size);
    s->arena_size = end;
    return at;
}

static int same(const Counter *s, Key held, Key key, const uint8_t *p, int64_t size) {
    if (held.low != key.low) return 0;
    if (!is_long(key)) return held.high == key.high;
    if (!is_long(held)) return 0;
    int64_t length;
    const uint8_t *text = long_piece(s, held, &length);
    return length == size && !memcmp(text, p, size);
}

/* Count the piece p `times` more; 0 without memory. */
static inline int count(Counter *s, Key key, const uint8_t *p, int64_t size, int64_t times) {
    uint64_t mask = ((uint64_t)1 << s->bits) - 1, at = hash_of(key) & mask;
    for (; s->slots[at].key.high; at = (at + 1) & mask)
        if (same(s, s->slots[at].key, key, p, size)) {
            s->slots[at].count += times;
            return 1;
        }
    if (is_long(key)) {
        int64_t place = keep(s, p, size);
        if (place < 0) return 0;
        key.high |= (uint64_t)place;
    }
    s->slots[at] = (Slot){key, times};
    s->pieces++;
    s->piece_bytes += size;
    return s->pieces * 4 < (int64_t)3 << s->bits || grow(s);
}

static int count_text(Counter *s, const uint8_t *p, const uint8_t *end) {
    while (p < end) {
        const uint8_t *next = piece_end(p, end);
        if (!count(s, key_of(p, next - p, end), p, next - p, 1)) return 0;
        p = next;
    }
    return 1;
}

/* ---- the Python type ---- */

static PyObject *counter_new(PyTypeObject *type, PyObject *args, PyObject *kinds) {
    if (!PyArg_ParseTuple(args, "")) return NULL;
    Counter *s = (Counter *)type->tp_alloc(type, 0);
    if (s && !grow(s)) {
        PyErr_NoMemory();
        Py_CLEAR(s);
    }
    return (PyObject *)s;
}

static void counter_free(Counter *s) {
    PyTypeObject *type = Py_TYPE(s);
    free(s->slots);
    free(s->arena);
    type->tp_free(s);
    Py_DECREF(type);
}

/* Begin work on the strings data[offsets[i]:offsets[i + 1]]: their number, -1 with an exception. */
static int64_t begin(Counter *s, const Py_buffer *data, const Py_buffer *offsets) {
    const int64_t *edges = offsets->buf;
    int64_t n = offsets->len / ITEM - 1;
    int agree = n >= 0 && offsets->len % ITEM == 0 && edges[0] >= 0;
    for (int64_t i = 0; agree && i < n; i++) agree = edges[i] <= edges[i + 1];
    if (!agree || edges[n] > data->len) {
        PyErr_SetString(PyExc_ValueError, "Counter: data, offsets and counts do not agree");
        return -1;
    }
    if (s->state != FREE) {
        PyErr_SetString(PyExc_ValueError, "Counter: it is busy or broken");
        return -1;
    }
    s->state = BUSY;
    return n;
}

static PyObject *end_of(Counter *s, int fine) {
    s->state = fine ? FREE : FAILED;
    if (!fine) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(add_doc,
"add(data, offsets)\n\n"
"Count the pieces of the texts data[offsets[i]:offsets[i + 1]] (UTF-8; offsets int64).");

static PyObject *counter_add(Counter *s, PyObject *args) {
    Py_buffer data, offsets;
    if (!PyArg_ParseTuple(args, "y*y*", &data, &offsets)) return NULL;
    PyObject *result = NULL;
    const int64_t *edges = offsets.buf;
    const uint8_t *text = data.buf;
    int64_t n = begin(s, &data, &offsets);
    if (n >= 0) {
        int fine = 1;
        Py_BEGIN_ALLOW_THREADS
        for (int64_t i = 0; i < n && fine; i++)
            fine = count_text(s, text + edges[i], text + edges[i + 1]);
        Py_END_ALLOW_THREADS
        result = end_of(s, fine);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    return result;
}

PyDoc_STRVAR(add_counts_doc,
"add_counts(data, offsets, counts, part, parts)\n\n"
"Pieces that were counted before: data[offsets[i]:offsets[i + 1]] counts[i] times (int64). Of all\n"
"pieces only those that fall into `part` (0 is the first) of `parts`.");

static PyObject *counter_add_counts(Counter *s, PyObject *args) {
    Py_buffer data, offsets, counts;
    unsigned int part, parts;
    if (!PyArg_ParseTuple(args, "y*y*y*II", &data, &offsets, &counts, &part, &parts)) return NULL;
    PyObject *result = NULL;
    const int64_t *edges = offsets.buf, *times = counts.buf;
    const uint8_t *text = data.buf, *end = text + data.len;
    if (counts.len + ITEM != offsets.len || part >= parts) {
        PyErr_SetString(PyExc_ValueError, "Counter: data, offsets and counts do not agree");
    } else if (begin(s, &data, &offsets) >= 0) {
        int64_t n = counts.len / ITEM;
        int fine = 1;
        Py_BEGIN_ALLOW_THREADS
        for (int64_t i = 0; i < n && fine; i++) {
            int64_t size = edges[i + 1] - edges[i];
            Key key = key_of(text + edges[i], size, end);
            if (size && (hash_of(key) >> 48) % parts == part)
                fine = count(s, key, text + edges[i], size, times[i]);
        }
        Py_END_ALLOW_THREADS
        result = end_of(s, fine);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&counts);
    return result;
}

/* Write all pieces out. */
static void write_out(const Counter *s, uint8_t *text, int64_t *edges, int64_t *times) {
    int64_t end = 0, n = 0;
    for (int64_t i = 0; i < (int64_t)1 << s->bits; i++) {
        const Slot *slot = &s->slots[i];
        int64_t size = (int64_t)(slot->key.high >> 56);
        if (!size) continue;
        edges[n] = end;
        times[n++] = slot->count;
        if (is_long(slot->key)) {
            const uint8_t *piece = long_piece(s, slot->key, &size);
            memcpy(text + end, piece, size);
        } else {
            uint64_t half[2] = {slot->key.low, slot->key.high};
            for (int64_t k = 0; k < size; k++) text[end + k] = (uint8_t)(half[k / 8] >> k % 8 * 8);
        }
        end += size;
    }
    edges[n] = end;
}

/* Forget all pieces and give their memory back; 0 without memory for a new table. */
static int clear(Counter *s) {
    free(s->slots);
    free(s->arena);
    s->slots = NULL;
    s->arena = NULL;
    s->pieces = s->piece_bytes = s->arena_size = s->arena_room = 0;
    return grow(s);
}

PyDoc_STRVAR(take_doc,
"take() -> data, offsets, counts\n\n"
"All pieces and how often each occurs, as in add_counts, in no particular order. The counter is\n"
"empty afterwards.");

static PyObject *counter_take(Counter *s, PyObject *ignored) {
    if (s->state != FREE) {
        PyErr_SetString(PyExc_ValueError, "Counter: it is busy or broken");
        return NULL;
    }
    PyObject *text = PyBytes_FromStringAndSize(NULL, s->piece_bytes);
    PyObject *edges = PyBytes_FromStringAndSize(NULL, (s->pieces + 1) * ITEM);
    PyObject *times = PyBytes_FromStringAndSize(NULL, s->pieces * ITEM);
    PyObject *result = NULL;
    if (text && edges && times) {
        write_out(s, (uint8_t *)PyBytes_AS_STRING(text), (int64_t *)PyBytes_AS_STRING(edges),
                  (int64_t *)PyBytes_AS_STRING(times));
        if (clear(s)) {
            result = PyTuple_Pack(3, text, edges, times);
        } else {
            s->state = FAILED;
            PyErr_NoMemory();
        }
    }
    Py_XDECREF(text);
    Py_XDECREF(edges);
    Py_XDECREF(times);
    return result;
}

PyDoc_STRVAR(held_doc, "held() -> int\n\nBytes of memory that the pieces take.");

static PyObject *counter_held(Counter *s, PyObject *ignored) {
    return PyLong_FromLongLong(((long long)sizeof *s->slots << s->bits) + s->arena_size);
}

static PyMethodDef methods[] = {
    {"add", (PyCFunction)counter_add, METH_VARARGS, add_doc},
    {"add_counts", (PyCFunction)counter_add_counts, METH_VARARGS, add_counts_doc},
    {"take", (PyCFunction)counter_take, METH_NOARGS, take_doc},
    {"held", (PyCFunction)counter_held, METH_NOARGS, held_doc},
    {NULL, NULL, 0, NULL},
};
static PyType_Slot slots[] = {
    {Py_tp_doc, "Counter(): how often each piece of some texts occurs."},
    {Py_tp_new, counter_new},
    {Py_tp_dealloc, counter_free},
    {Py_tp_methods, methods},
    {0, NULL},
};
static PyType_Spec spec = {
    "gptwo.native._count.Counter", sizeof(Counter), 0, Py_TPFLAGS_DEFAULT, slots,
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_count", NULL, 0, NULL,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__count(void) {
    PyObject *made = PyModule_Create(&module), *type = made ? PyType_FromSpec(&spec) : NULL;
    if (!type || PyModule_AddObjectRef(made, "Counter", type)) Py_CLEAR(made);
    Py_XDECREF(type);
    return made;
}
