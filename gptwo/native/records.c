/* Records of a WARC file in gzip members of their own: the quick way beside gptwo/corpus/archive.py,
   warc.py and http.py, which say what a record is and serve for everything that is not as it should
   be.

   A member is read here only if it is whole, in order, and holds one record and nothing else; then
   the result is the one of the plain code. The first member that is not ends the batch. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "inflate.h"

enum { FIRST_LINE = 64, MAX_HEAD = 60000, MAX_DIGITS = 15, DATE = 10 };
enum { FIRST_ROOM = 1 << 17 };
#define BATCH_BYTES ((size_t)1 << 17) /* of payload: more makes the heap grow and shrink */

/* What a result is. */
enum { HTTP, BLOCK, RESOURCE, CONVERSION };

typedef struct {
    const uint8_t *at, *end; /* NULL: there is none */
} Span;

typedef struct {
    Inflate inflate;
    Buffer member, body;
} Scratch;

/* What is known of a record when it is handed over. */
typedef struct {
    int kind, status;
    long long offset;
    Span url, date, type, charset, payload;
} Record;

enum Outcome { FAILED = -1, ODD = 0, READ = 1 };

/* ---- header lines ---- */

static inline int is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static inline int is_digit(uint8_t c) { return c >= '0' && c <= '9'; }
static inline uint8_t small(uint8_t c) { return c >= 'A' && c <= 'Z' ? c | 32 : c; }
static inline size_t size_of(Span span) { return (size_t)(span.end - span.at); }

static Span strip(Span span) {
    while (span.at < span.end && is_space(*span.at)) span.at++;
    while (span.at < span.end && is_space(span.end[-1])) span.end--;
    return span;
}

/* Whether a span is `name`, which is in small letters; itself it may be in others. */
static int is(Span span, const char *name) {
    size_t size = strlen(name);
    if (size_of(span) != size) return 0;
    for (size_t i = 0; i < size; i++)
        if (small(span.at[i]) != (uint8_t)name[i]) return 0;
    return 1;
}

static int starts(Span span, const char *name) {
    size_t size = strlen(name);
    return size_of(span) >= size && is((Span){span.at, span.at + size}, name);
}

/* Where header lines end and what follows them begins; see `end_of_head` in http.py, which asks
   for CR LF CR LF first and then for its sloppy forms before it. */
static int end_of_head(Span data, const uint8_t **end, const uint8_t **begin) {
    for (const uint8_t *p = data.at; (p = memchr(p, '\n', (size_t)(data.end - p))); p++) {
        size_t rest = (size_t)(data.end - p);
        size_t before = 0, length;
        if (rest >= 2 && p[1] == '\n') {
            length = 2;
        } else if (rest >= 3 && p[1] == '\r' && p[2] == '\n') {
            length = 3;
            if (p > data.at && p[-1] == '\r') {
                p--;
                length = 4;
            } else if (rest >= 5 && p[3] == '\r' && p[4] == '\n') {
                before = 1;
                length = 4;
            } else if (rest >= 4 && p[3] == '\n') {
                before = 2;
                length = 2;
            }
        } else {
            continue;
        }
        *end = p + before;
        *begin = *end + length;
        return 1;
    }
    return 0;
}

/* The values of fields in the lines behind the first one, each where it is found first. */
static void read_fields(Span head, const char *const *names, Span *values, int count) {
    const uint8_t *p = head.at;
    while ((p = memchr(p, '\n', (size_t)(head.end - p)))) {
        p++;
        for (int i = 0; i < count; i++) {
            if (p == head.end || small(*p) != (uint8_t)names[i][0]) continue;
            size_t size = strlen(names[i]);
            if (values[i].at || !starts((Span){p, head.end}, names[i])) continue;
            const uint8_t *end = memchr(p, '\n', (size_t)(head.end - p));
            values[i] = strip((Span){p + size, end ? end : head.end});
        }
    }
}

/* A number of up to 15 digits and no more, or -1. */
static long long number(Span span) {
    long long value = 0;
    if (size_of(span) < 1 || size_of(span) > MAX_DIGITS) return -1;
    for (; span.at < span.end; span.at++) {
        if (!is_digit(*span.at)) return -1;
        value = value * 10 + (*span.at - '0');
    }
    return value;
}

/* ---- HTTP ---- */

/* The status line; where it ends, or NULL. */
static const uint8_t *read_status(Span block, int *status) {
    const uint8_t *p = block.at, *end = block.end;
    while (p < end && is_space(*p)) p++;
    if (end - p < 5 || memcmp(p, "HTTP/", 5)) return NULL;
    const uint8_t *version = p += 5;
    while (p < end && !is_space(*p)) p++;
    if (p == version) return NULL;
    const uint8_t *gap = p;
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    if (p == gap || end - p < 3 || !is_digit(p[0]) || !is_digit(p[1]) || !is_digit(p[2]))
        return NULL;
    if (end - p > 3 && (is_digit(p[3]) || p[3] == '_' || (small(p[3]) >= 'a' && small(p[3]) <= 'z')))
        return NULL;
    *status = (p[0] - '0') * 100 + (p[1] - '0') * 10 + (p[2] - '0');
    return p + 3;
}

/* A content type of printable ASCII into the type and its charset; 0 where it is of other bytes. */
static int read_type(Span value, Record *record) {
    if (!value.at) return 1;
    for (const uint8_t *p = value.at; p < value.end; p++)
        if (*p != '\t' && (*p < ' ' || *p > '~')) return 0;
    const uint8_t *p = memchr(value.at, ';', size_of(value));
    record->type = strip((Span){value.at, p ? p : value.end});
    for (; p && p < value.end; p++) {
        if (!starts((Span){p, value.end}, "charset")) continue;
        const uint8_t *q = p + 7;
        while (q < value.end && is_space(*q)) q++;
        if (q == value.end || *q++ != '=') continue;
        while (q < value.end && is_space(*q)) q++;
        if (q < value.end && (*q == '"' || *q == '\'')) q++;
        const uint8_t *begin = q;
        while (q < value.end && !is_space(*q) && *q != '"' && *q != '\'' && *q != ';') q++;
        if (q == begin) continue;
        record->charset = (Span){begin, q};
        break;
    }
    return 1;
}

static inline int hex(uint8_t c) {
    if (is_digit(c)) return c - '0';
    c = small(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The line before a chunk: its size and where it ends, or NULL. */
static const uint8_t *read_chunk_size(const uint8_t *p, const uint8_t *end, size_t *size) {
    int digits = 0;
    *size = 0;
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    for (; p < end && digits < 8 && hex(*p) >= 0; p++, digits++)
        *size = *size << 4 | (size_t)hex(*p);
    if (!digits) return NULL;
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    if (p < end && *p == ';')
        while (p < end && *p != '\r' && *p != '\n') p++;
    if (p < end && *p == '\r') p++;
    return p < end && *p == '\n' ? p + 1 : NULL;
}

/* What chunks hold, moved to `to` unless that is NULL; its size, or -1 where they do not end. */
static Py_ssize_t join_chunks(Span payload, uint8_t *to) {
    const uint8_t *p = payload.at, *end = payload.end;
    Py_ssize_t sum = 0;
    size_t size;
    while ((p = read_chunk_size(p, end, &size))) {
        if (!size) return sum;
        if (size > (size_t)(end - p)) return -1;
        if (to) memmove(to + sum, p, size);
        sum += (Py_ssize_t)size;
        p += size;
        if (p < end && *p == '\n')
            p++;
        else if (end - p >= 2 && p[0] == '\r' && p[1] == '\n')
            p += 2;
    }
    return -1;
}

static int contains(Span value, const char *name) {
    for (; value.at < value.end; value.at++)
        if (starts(value, name)) return 1;
    return 0;
}

/* Whether bytes have this CRC-32, by the function of Python given. */
static int has_checksum(PyObject *crc32, const uint8_t *at, size_t size, uint32_t checksum) {
    PyObject *view = PyMemoryView_FromMemory((char *)at, (Py_ssize_t)size, PyBUF_READ);
    PyObject *found = view ? PyObject_CallOneArg(crc32, view) : NULL;
    Py_XDECREF(view);
    if (!found) return FAILED;
    unsigned long value = PyLong_AsUnsignedLong(found);
    Py_DECREF(found);
    if (PyErr_Occurred()) return FAILED;
    return value == checksum ? READ : ODD;
}

static int read_member(Inflate *inflate, Span in, Buffer *to, size_t first, PyObject *crc32,
                       const uint8_t **behind, size_t *size) {
    uint32_t checksum;
    *behind = inflate_member(inflate, in.at, in.end, to, first, size, &checksum);
    return *behind ? has_checksum(crc32, to->data, *size, checksum) : ODD;
}

/* Undo the encodings of a payload; ODD where that takes more than is done here, with `spoiled`
   where the block is no longer what it was. */
static int decode(Scratch *scratch, Span transfer, Span encoding, size_t max_bytes, PyObject *crc32,
                  Span *payload, int *spoiled) {
    if (contains(transfer, "chunked")) {
        Py_ssize_t size = join_chunks(*payload, NULL);
        if (size < 0) return ODD;
        uint8_t *to = scratch->member.data + (payload->at - scratch->member.data);
        join_chunks(*payload, to);
        payload->end = payload->at + size;
        *spoiled = 1;
    }
    if (payload->at == payload->end) return READ;
    if (is(encoding, "deflate") || is(encoding, "zstd") || is(encoding, "br")) return ODD;
    if (!is(encoding, "gzip") && !is(encoding, "x-gzip")) return READ;
    if (size_of(*payload) < 2 || payload->at[0] != 0x1f || payload->at[1] != 0x8b) return READ;
    const uint8_t *behind;
    size_t size;
    int outcome = read_member(&scratch->inflate, *payload, &scratch->body, 0, crc32, &behind, &size);
    if (outcome != READ) return outcome;
    if (size > max_bytes) return ODD;
    *payload = (Span){scratch->body.data, scratch->body.data + size};
    return READ;
}

/* A response; those that need more than this are handed over as blocks. */
static int read_http(Scratch *scratch, Record *record, size_t max_bytes, PyObject *crc32) {
    static const char *const names[] = {"content-type:", "transfer-encoding:", "content-encoding:"};
    Span values[3] = {{0}}, block = record->payload;
    const uint8_t *end, *begin, *status = read_status(block, &record->status);
    record->kind = BLOCK;
    if (!status) return READ;
    if (!end_of_head((Span){status, block.end}, &end, &begin)) end = begin = block.end;
    read_fields((Span){block.at, end}, names, values, 3);
    if (!read_type(values[0], record)) return READ;
    record->payload = (Span){begin, record->status == 200 ? block.end : begin};
    int spoiled = 0;
    int outcome = decode(scratch, values[1], values[2], max_bytes, crc32, &record->payload, &spoiled);
    if (outcome == READ) record->kind = HTTP;
    if (outcome != ODD) return outcome;
    record->payload = block;
    return spoiled ? ODD : READ;
}

/* ---- records ---- */

static int is_first_line(Span data) {
    const uint8_t *p = data.at, *end = data.end;
    if (end - p > FIRST_LINE) end = p + FIRST_LINE;
    if (end - p < 8 || memcmp(p, "WARC/", 5) || (p[5] != '0' && p[5] != '1') || p[6] != '.')
        return 0;
    const uint8_t *minor = p += 7;
    while (p < end && is_digit(*p)) p++;
    if (p == minor) return 0;
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    if (p < end && *p == '\r') p++;
    return p < end && *p == '\n';
}

/* A record that fills `data`: READ, with no `url` where it is none of a page. */
static int read_record(Scratch *scratch, Span data, size_t max_bytes, PyObject *crc32,
                       Record *record) {
    static const char *const names[] = {"content-length:", "warc-target-uri:", "warc-type:",
                                        "warc-date:", "content-type:"};
    Span values[5] = {{0}};
    const uint8_t *end, *begin;
    if (!is_first_line(data) || !end_of_head(data, &end, &begin) || end - data.at > MAX_HEAD)
        return ODD;
    read_fields((Span){data.at, end}, names, values, 5);
    long long length = number(values[0]);
    if (length < 0 || length > data.end - begin) return ODD;
    for (const uint8_t *p = begin + length; p < data.end; p++)
        if (*p != '\r' && *p != '\n') return ODD;
    Span url = values[1], kind = values[2];
    while (url.at < url.end && strchr("<> ", *url.at) && *url.at) url.at++;
    while (url.at < url.end && strchr("<> ", url.end[-1]) && url.end[-1]) url.end--;
    if ((size_of(url) < 5 || memcmp(url.at, "http:", 5)) &&
        (size_of(url) < 6 || memcmp(url.at, "https:", 6)))
        return READ;
    int resource = is(kind, "resource"), conversion = is(kind, "conversion");
    if (!resource && !conversion && !is(kind, "response")) return READ;
    if ((unsigned long long)length > max_bytes) return ODD;
    record->url = url;
    record->date = values[3];
    if (size_of(record->date) > DATE) record->date.end = record->date.at + DATE;
    record->payload = (Span){begin, begin + length};
    if (!resource && !conversion) return read_http(scratch, record, max_bytes, crc32);
    record->kind = resource ? RESOURCE : CONVERSION;
    const uint8_t *parameters =
        values[4].at ? memchr(values[4].at, ';', size_of(values[4])) : NULL;
    record->type = strip((Span){values[4].at, parameters ? parameters : values[4].end});
    return READ;
}

/* ---- Python ---- */

/* Small letters, Latin-1. */
static PyObject *string_of(Span span) {
    uint8_t letters[256];
    size_t size = size_of(span);
    if (size > sizeof letters) {
        PyObject *text = PyUnicode_DecodeLatin1((const char *)span.at, (Py_ssize_t)size, NULL);
        PyObject *made = text ? PyObject_CallMethod(text, "lower", NULL) : NULL;
        Py_XDECREF(text);
        return made;
    }
    for (size_t i = 0; i < size; i++) letters[i] = small(span.at[i]);
    return PyUnicode_DecodeLatin1((const char *)letters, (Py_ssize_t)size, NULL);
}

static PyObject *tuple_of(const Record *r) {
    PyObject *made = PyTuple_New(8);
    if (!made) return NULL;
    PyObject *items[8] = {
        PyLong_FromLong(r->kind),
        PyLong_FromLongLong(r->offset),
        PyUnicode_DecodeUTF8((const char *)r->url.at, (Py_ssize_t)size_of(r->url), "replace"),
        PyUnicode_DecodeLatin1((const char *)r->date.at, (Py_ssize_t)size_of(r->date), NULL),
        PyLong_FromLong(r->status),
        string_of(r->type),
        string_of(r->charset),
        PyBytes_FromStringAndSize((const char *)r->payload.at, (Py_ssize_t)size_of(r->payload)),
    };
    int whole = 1;
    for (int i = 0; i < 8; i++) {
        whole &= items[i] != NULL;
        PyTuple_SET_ITEM(made, i, items[i]);
    }
    if (whole) return made;
    Py_DECREF(made);
    return NULL;
}

static Scratch *spare; /* of the call before, under the lock of the interpreter */

static void drop(Scratch *scratch) {
    if (!scratch) return;
    free(scratch->member.data);
    free(scratch->body.data);
    free(scratch);
}

static Scratch *borrow(void) {
    Scratch *scratch = spare;
    spare = NULL;
    if (scratch) return scratch;
    scratch = calloc(1, sizeof *scratch);
    if (scratch && grow(&scratch->member, 0, FIRST_ROOM) && grow(&scratch->body, 0, FIRST_ROOM))
        return scratch;
    drop(scratch);
    PyErr_NoMemory();
    return NULL;
}

static void give_back(Scratch *scratch) {
    if (spare)
        drop(scratch);
    else
        spare = scratch;
}

PyDoc_STRVAR(read_doc,
"read(data, at, base, max_bytes, crc32) -> behind, last, size, records\n\n"
"Gzip members from data[at] on, while each holds one whole record: where the next one begins, where\n"
"the last one did (-1: none was read) and its inflated size, and of every page a tuple (kind,\n"
"offset, url, date, status, type, charset, payload). `base` is the offset of data[0], `crc32` a\n"
"function. Kinds: 0 a response, 1 a response whose payload is its block still, 2 a resource,\n"
"3 a conversion.");

static PyObject *read_members(PyObject *module, PyObject *args) {
    Py_buffer data;
    Py_ssize_t at, max_bytes, last = -1, size = 0;
    long long base;
    PyObject *crc32;
    if (!PyArg_ParseTuple(args, "y*nLnO", &data, &at, &base, &max_bytes, &crc32)) return NULL;
    Scratch *scratch = NULL;
    PyObject *records = NULL;
    int outcome = FAILED;
    if (at < 0 || at > data.len || max_bytes < 0)
        PyErr_SetString(PyExc_ValueError, "records: out of range");
    else if ((scratch = borrow()) && (records = PyList_New(0)))
        outcome = READ;
    const uint8_t *begin = data.buf, *end = begin + data.len, *behind;
    for (size_t held = 0; outcome == READ && held < BATCH_BYTES;) {
        Record record = {.offset = base + at};
        size_t inflated;
        outcome = read_member(&scratch->inflate, (Span){begin + at, end}, &scratch->member,
                              FIRST_LINE, crc32, &behind, &inflated);
        if (outcome == READ)
            outcome = read_record(scratch,
                                  (Span){scratch->member.data, scratch->member.data + inflated},
                                  (size_t)max_bytes, crc32, &record);
        if (outcome != READ) break;
        if (record.url.at) {
            PyObject *made = tuple_of(&record);
            if (!made || PyList_Append(records, made) < 0) outcome = FAILED;
            Py_XDECREF(made);
            held += size_of(record.payload);
        }
        last = at;
        size = (Py_ssize_t)inflated;
        at = behind - begin;
    }
    PyBuffer_Release(&data);
    if (scratch) give_back(scratch);
    if (outcome != FAILED) return Py_BuildValue("nnnN", at, last, size, records);
    Py_XDECREF(records);
    return NULL;
}

static PyMethodDef methods[] = {
    {"read", read_members, METH_VARARGS, read_doc},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_records", NULL, 0, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__records(void) {
    prepare_inflate();
    return PyModule_Create(&module);
}
