/* Inflates one gzip member (RFC 1951, 1952) that lies whole in memory.

   It takes what is in order and gives up on all else: what is cut, broken, of an uncommon build or
   longer than MAX_OUT; who calls it has another way for that. Whether the bytes are right is for
   the checksum to say.

   Codes are looked up by their first 11 bits (distances: 9) in tables whose entries hold

       bits 0-7    bits to consume: those of the code and the extra bits behind it
       bits 8-12   bits of the code alone
       bits 13-15  what it is: SUBTABLE, SPECIAL, LITERAL
       bits 16-31  a literal, the base of a length or distance, or where a subtable begins */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LITERAL = 1 << 15, SPECIAL = 1 << 14, SUBTABLE = 1 << 13, END = SPECIAL | 1 << 16 };
enum { LENGTH_BITS = 11, DISTANCE_BITS = 9, LENGTHS_BITS = 7, LONGEST_CODE = 15 };
enum { LENGTH_SUB = LONGEST_CODE - LENGTH_BITS, DISTANCE_SUB = LONGEST_CODE - DISTANCE_BITS };
enum { LENGTH_CODES = 288, DISTANCE_CODES = 32, LENGTHS_CODES = 19 };
enum {
    AHEAD = 8,      /* bytes that `bits` may hold */
    IN_SLACK = 32,  /* bytes that a turn of the loop may read at most, and more */
    OUT_SLACK = 320 /* bytes that it may write at most, and more */
};
#define MAX_OUT ((size_t)8 << 20)

typedef struct {
    uint8_t *data;
    size_t room; /* OUT_SLACK of it stay free */
} Buffer;

typedef struct {
    const uint8_t *in, *end; /* of the input, or of `tail` */
    const uint8_t *limit;    /* beyond it a turn of the loop might read behind the input */
    uint64_t bits;           /* read ahead; above `held` of them are some that will be read again */
    unsigned held;
    const uint8_t *input_end; /* of the input itself, while `tail` is read */
    uint8_t *out, *out_limit;
    Buffer *to;
    uint8_t tail[4 * IN_SLACK]; /* the last bytes of the input, and zeros */
    uint32_t length[(1 << LENGTH_BITS) + (LENGTH_CODES << LENGTH_SUB)];
    uint32_t distance[(1 << DISTANCE_BITS) + (DISTANCE_CODES << DISTANCE_SUB)];
} Inflate;

static inline uint64_t load64(const uint8_t *at) { /* little end first */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    uint64_t value = 0;
    for (int i = 8; i-- > 0;) value = value << 8 | at[i];
    return value;
#else
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
#endif
}

static inline uint32_t load32(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* ---- input and output ---- */

/* Room for more than the first `kept` bytes; 0 where that cannot be. */
static int grow(Buffer *buffer, size_t kept, size_t room) {
    uint8_t *grown = room <= MAX_OUT ? malloc(room) : NULL;
    if (!grown) return 0;
    if (kept) memcpy(grown, buffer->data, kept);
    free(buffer->data);
    buffer->data = grown;
    buffer->room = room;
    return 1;
}

static inline void set_out(Inflate *s, size_t size) {
    s->out = s->to->data + size;
    s->out_limit = s->to->data + s->to->room - OUT_SLACK;
}

/* Go on where the end of the input or of the output is near; 0 where that cannot be. */
static int make_room(Inflate *s) {
    if (s->out > s->out_limit) {
        size_t size = (size_t)(s->out - s->to->data);
        if (!grow(s->to, size, s->to->room * 2)) return 0;
        set_out(s, size);
    }
    if (s->in <= s->limit) return 1;
    if (s->input_end) return 0; /* read behind the end */
    size_t left = (size_t)(s->end - s->in);
    if (s->in > s->end || left >= IN_SLACK) return 0;
    memcpy(s->tail, s->in - AHEAD, AHEAD + left); /* a member's header lies before it at least */
    memset(s->tail + AHEAD + left, 0, sizeof s->tail - AHEAD - left);
    s->input_end = s->end;
    s->in = s->tail + AHEAD;
    s->end = s->in + left;
    s->limit = s->end + IN_SLACK;
    return 1;
}

#define REFILL(in, bits, held) \
    (bits |= load64(in) << held, in += (63 - held) >> 3, held |= 56)

static inline unsigned take_bits(Inflate *s, unsigned count) {
    unsigned value = (unsigned)(s->bits & ((1u << count) - 1));
    s->bits >>= count;
    s->held -= count;
    return value;
}

/* Give back the whole bytes read ahead. */
static void to_byte(Inflate *s) {
    s->in -= s->held >> 3;
    s->bits = 0;
    s->held = 0;
}

/* ---- codes ---- */

static inline unsigned reversed(unsigned code, unsigned count) {
    code = (code & 0x5555) << 1 | (code >> 1 & 0x5555);
    code = (code & 0x3333) << 2 | (code >> 2 & 0x3333);
    code = (code & 0x0F0F) << 4 | (code >> 4 & 0x0F0F);
    code = (code & 0x00FF) << 8 | (code >> 8 & 0x00FF);
    return code >> (16 - count);
}

/* The table of the codes of `n` symbols of these lengths; 0 where they are no code. A code of one
   symbol or none is let pass: a block without a match has such distances. */
static int build(uint32_t *table, unsigned bits, const uint8_t *lengths, unsigned n,
                 const uint32_t *values) {
    unsigned count[LONGEST_CODE + 1] = {0}, place[LONGEST_CODE + 2];
    uint16_t sorted[LENGTH_CODES];
    for (unsigned i = 0; i < n; i++) count[lengths[i]]++;
    unsigned used = n - count[0];
    int left = 1;
    place[1] = 0;
    for (unsigned l = 1; l <= LONGEST_CODE; l++) {
        left = left * 2 - (int)count[l];
        if (left < 0) return 0;
        place[l + 1] = place[l] + count[l];
    }
    if (left && (used > 1 || used != count[1])) return 0;
    for (unsigned i = 0; i < n; i++)
        if (lengths[i]) sorted[place[lengths[i]]++] = (uint16_t)i;
    const uint16_t *symbol = sorted;
    unsigned code = 0;
    table[0] = table[1] = SPECIAL;
    for (unsigned l = 1; l <= bits; l++) { /* the table of l bits, from that of l - 1 twice */
        for (unsigned k = count[l]; k > 0; k--)
            table[reversed(code++, l)] = values[*symbol++] + l * 0x101;
        code <<= 1;
        if (l < bits) memcpy(table + (1u << l), table, sizeof *table << l);
    }
    uint32_t begin = 0, next = 1u << bits;
    unsigned sub = LONGEST_CODE - bits, prefix = ~0u;
    for (unsigned l = bits + 1; l <= LONGEST_CODE; l++, code <<= 1) {
        for (unsigned k = count[l]; k > 0; k--, code++) {
            if (code >> (l - bits) != prefix) {
                prefix = code >> (l - bits);
                begin = next;
                next += 1u << sub;
                table[reversed(prefix, bits)] = SPECIAL | SUBTABLE | begin << 16;
            }
            unsigned rest = l - bits;
            uint32_t entry = values[*symbol++] + l * 0x101;
            for (unsigned i = reversed(code & ((1u << rest) - 1), rest); i < 1u << sub;
                 i += 1u << rest)
                table[begin + i] = entry;
        }
    }
    return 1;
}

static uint32_t length_values[LENGTH_CODES], distance_values[DISTANCE_CODES],
    lengths_values[LENGTHS_CODES];

static void prepare_inflate(void) {
    for (unsigned i = 0; i < LENGTHS_CODES; i++) lengths_values[i] = i << 16;
    for (unsigned i = 0; i < 256; i++) length_values[i] = LITERAL | i << 16;
    length_values[256] = END;
    for (unsigned i = 257, base = 3; i < 285; i++) {
        unsigned extra = i < 265 ? 0 : (i - 261) / 4;
        length_values[i] = base << 16 | extra;
        base += 1u << extra;
    }
    length_values[285] = 258u << 16;
    length_values[286] = length_values[287] = SPECIAL;
    for (unsigned i = 0, base = 1; i < 30; i++) {
        unsigned extra = i < 4 ? 0 : i / 2 - 1;
        distance_values[i] = base << 16 | extra;
        base += 1u << extra;
    }
    distance_values[30] = distance_values[31] = SPECIAL;
}

static int fixed_codes(Inflate *s) {
    uint8_t lengths[LENGTH_CODES], distances[DISTANCE_CODES];
    for (unsigned i = 0; i < LENGTH_CODES; i++)
        lengths[i] = (uint8_t)(i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8);
    memset(distances, 5, sizeof distances);
    return build(s->length, LENGTH_BITS, lengths, LENGTH_CODES, length_values) &&
           build(s->distance, DISTANCE_BITS, distances, DISTANCE_CODES, distance_values);
}

static int read_codes(Inflate *s) {
    static const uint8_t order[LENGTHS_CODES] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                                 11, 4,  12, 3, 13, 2, 14, 1, 15};
    uint8_t first[LENGTHS_CODES] = {0}, lengths[LENGTH_CODES + DISTANCE_CODES + 140];
    uint32_t table[1 << LENGTHS_BITS];
    unsigned n = take_bits(s, 5) + 257, m = take_bits(s, 5) + 1, count = take_bits(s, 4) + 4;
    if (n > 286 || m > 30) return 0;
    for (unsigned i = 0; i < count; i++) {
        if (i == 0 || i == 10) {
            if (s->in > s->limit && !make_room(s)) return 0;
            REFILL(s->in, s->bits, s->held);
        }
        first[order[i]] = (uint8_t)take_bits(s, 3);
    }
    if (!build(table, LENGTHS_BITS, first, LENGTHS_CODES, lengths_values)) return 0;
    for (unsigned i = 0; i < n + m;) {
        if (s->held < 14) {
            if (s->in > s->limit && !make_room(s)) return 0;
            REFILL(s->in, s->bits, s->held);
        }
        uint32_t entry = table[s->bits & ((1u << LENGTHS_BITS) - 1)];
        if (entry & SPECIAL) return 0;
        take_bits(s, entry & 0xFF);
        unsigned symbol = entry >> 16, times;
        uint8_t length = 0;
        if (symbol < 16) {
            lengths[i++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16) {
            if (!i) return 0;
            length = lengths[i - 1];
            times = 3 + take_bits(s, 2);
        } else {
            times = symbol == 17 ? 3 + take_bits(s, 3) : 11 + take_bits(s, 7);
        }
        memset(lengths + i, length, times); /* there is room for 138 too many */
        i += times;
        if (i > n + m) return 0;
    }
    return lengths[256] && build(s->length, LENGTH_BITS, lengths, n, length_values) &&
           build(s->distance, DISTANCE_BITS, lengths + n, m, distance_values);
}

/* ---- blocks ---- */

static int stored_block(Inflate *s) {
    to_byte(s);
    if (s->end - s->in < 4 || s->in > s->end) return 0;
    size_t size = s->in[0] | (size_t)s->in[1] << 8;
    if (size != (~(s->in[2] | (size_t)s->in[3] << 8) & 0xFFFF)) return 0;
    s->in += 4;
    size_t done = (size_t)(s->out - s->to->data), room = s->to->room;
    if ((size_t)(s->end - s->in) < size) return 0;
    while (room < done + size + 2 * OUT_SLACK) room *= 2;
    if (room > s->to->room) {
        if (!grow(s->to, done, room)) return 0;
        set_out(s, done);
    }
    memcpy(s->out, s->in, size);
    s->out += size;
    s->in += size;
    return 1;
}

static inline void copy_match(uint8_t *out, size_t distance, size_t length) {
    const uint8_t *from = out - distance;
    uint8_t *end = out + length;
    if (distance >= 8) { /* by words, up to 15 bytes too many */
        do {
            memcpy(out, from, 8);
            memcpy(out + 8, from + 8, 8);
            out += 16;
            from += 16;
        } while (out < end);
    } else if (distance == 1) {
        memset(out, *from, length);
    } else {
        while (out < end) *out++ = *from++;
    }
}

/* Of an entry and of `held` only the low bits count here: what is above them is never looked at. */
#define EXTRA(entry, bits) \
    (((bits) & (((uint64_t)1 << ((entry) & 63)) - 1)) >> ((entry) >> 8 & 63))
#define CONSUME(entry) (bits >>= (entry) & 63, held -= (entry))
#define READ_ON(in, bits, held) \
    (bits |= load64(in) << (held & 63), in += ~held >> 3 & 7, held |= 56)

/* Compiled for the shifts of newer processors too, where the loader can choose (which it does too
   early for the address sanitizer). */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
__attribute__((target_clones("default", "bmi2")))
#endif
static int coded_block(Inflate *s) { /* up to its end; 0 where it cannot be read */
    const uint32_t *lengths = s->length, *distances = s->distance;
    const uint32_t length_mask = (1 << LENGTH_BITS) - 1, distance_mask = (1 << DISTANCE_BITS) - 1;
    const uint8_t *in = s->in;
    uint8_t *out = s->out;
    uint64_t bits = s->bits, before;
    uint32_t held = s->held, entry;
    for (;;) {
        if (in > s->limit || out > s->out_limit) {
            s->in = in;
            s->out = out;
            if (!make_room(s)) return 0;
            in = s->in;
            out = s->out;
        }
        READ_ON(in, bits, held);
        entry = lengths[bits & length_mask];
    next:
        if (entry & LITERAL) { /* four take 44 of 56 bits, three and a length 53 */
            CONSUME(entry);
            *out++ = (uint8_t)(entry >> 16);
            entry = lengths[bits & length_mask];
            if (entry & LITERAL) {
                CONSUME(entry);
                *out++ = (uint8_t)(entry >> 16);
                entry = lengths[bits & length_mask];
                if (entry & LITERAL) {
                    CONSUME(entry);
                    *out++ = (uint8_t)(entry >> 16);
                    entry = lengths[bits & length_mask];
                    if (entry & LITERAL) {
                        CONSUME(entry);
                        *out++ = (uint8_t)(entry >> 16);
                        continue;
                    }
                }
            }
        }
        if (entry & SPECIAL) {
            if (entry & SUBTABLE)
                entry = lengths[(entry >> 16) +
                                (bits >> LENGTH_BITS & ((1 << LENGTH_SUB) - 1))];
            if (entry & LITERAL) {
                CONSUME(entry);
                *out++ = (uint8_t)(entry >> 16);
                continue;
            }
            if (entry & SPECIAL) break;
        }
        before = bits;
        CONSUME(entry);
        size_t length = (entry >> 16) + EXTRA(entry, before);
        READ_ON(in, bits, held);
        entry = distances[bits & distance_mask];
        if (entry & SPECIAL) {
            if (!(entry & SUBTABLE)) return 0;
            entry = distances[(entry >> 16) +
                              (bits >> DISTANCE_BITS & ((1 << DISTANCE_SUB) - 1))];
            if (entry & SPECIAL) return 0;
        }
        before = bits;
        CONSUME(entry);
        size_t distance = (entry >> 16) + EXTRA(entry, before);
        if (distance > (size_t)(out - s->to->data)) return 0;
        uint8_t *match = out;
        out += length;
        if (in <= s->limit && out <= s->out_limit) { /* the next lookup goes on during the copy */
            READ_ON(in, bits, held);
            entry = lengths[bits & length_mask];
            copy_match(match, distance, length);
            goto next;
        }
        copy_match(match, distance, length);
    }
    CONSUME(entry);
    s->in = in;
    s->out = out;
    s->bits = bits;
    s->held = held & 63;
    return entry >> 16 == END >> 16;
}

/* ---- members ---- */

/* Behind the header of a member, NULL where it is none, or an uncommon one. */
static const uint8_t *after_gzip_header(const uint8_t *at, const uint8_t *end) {
    enum { EXTRA_FIELD = 4, NAME = 8, MAX_HEADER = 1024 };
    if (end - at < 18 || memcmp(at, "\x1f\x8b\x08", 3)) return NULL;
    unsigned flags = at[3];
    if (flags & ~(EXTRA_FIELD | NAME)) return NULL;
    if (end - at > MAX_HEADER) end = at + MAX_HEADER;
    at += 10;
    if (flags & EXTRA_FIELD) {
        size_t size = 2 + (at[0] | (size_t)at[1] << 8);
        if (size > (size_t)(end - at)) return NULL;
        at += size;
    }
    if (flags & NAME) {
        at = memchr(at, 0, (size_t)(end - at));
        if (at) at++;
    }
    return at;
}

/* Inflate the member at `at` into `to`, which has room for a little; where it ends, or NULL. Of
   `first` bytes or more is its first block that holds anything. */
static const uint8_t *inflate_member(Inflate *s, const uint8_t *at, const uint8_t *end, Buffer *to,
                                     size_t first, size_t *size, uint32_t *checksum) {
    const uint8_t *data = after_gzip_header(at, end);
    if (!data) return NULL;
    s->in = data;
    s->end = end;
    s->limit = end - data >= IN_SLACK ? end - IN_SLACK : data - 1;
    s->bits = s->held = 0;
    s->input_end = NULL;
    s->to = to;
    set_out(s, 0);
    for (unsigned last = 0; !last;) {
        if ((s->in > s->limit || s->out > s->out_limit) && !make_room(s)) return NULL;
        REFILL(s->in, s->bits, s->held);
        last = take_bits(s, 1);
        unsigned kind = take_bits(s, 2);
        if (kind == 0 ? !stored_block(s)
                      : kind == 3 || !(kind == 1 ? fixed_codes(s) : read_codes(s)) ||
                            !coded_block(s))
            return NULL;
        if (!last && (size_t)(s->out - to->data) < first) return NULL;
    }
    to_byte(s);
    if (s->input_end) s->in = s->input_end - (s->end - s->in);
    const uint8_t *input_end = s->input_end ? s->input_end : s->end;
    if (input_end - s->in < 8 || s->in > input_end) return NULL;
    *size = (size_t)(s->out - to->data);
    *checksum = load32(s->in);
    return load32(s->in + 4) == (uint32_t)*size ? s->in + 8 : NULL;
}
