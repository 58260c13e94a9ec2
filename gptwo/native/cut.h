/* GPT-2's cut of text into pieces: a scanner for the pattern of gptwo/tokens/bpe.py.

   Text is UTF-8. Bytes that are not UTF-8 are a class of their own: a run of them is one piece, and
   text on either side is cut as if it ended there, as `stretches` and `cut` do together. Every step
   is linear: no byte is looked at more than a few times however long its run is. */
#ifndef GPTWO_CUT_H
#define GPTWO_CUT_H
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "unicode_classes.h"

enum { OTHER, LETTER, NUMBER, SPACE, BROKEN };

/* ASCII by class: what most text is made of. */
static const uint8_t ASCII_CLASS[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0,
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0,
};

static inline int unicode_class(uint32_t point) {
    if (point >= CLASSIFIED) return OTHER;
    return CLASS_BITS[CLASS_BLOCK[point >> 8]][(point & 255) >> 2] >> 2 * (point & 3) & 3;
}

static inline int continues(uint8_t byte) { return (byte & 0xC0) == 0x80; }

/* The class of a character of more than one byte and its size; a byte that starts none is BROKEN.
   Overlong forms, surrogates and code points above U+10FFFF are none, as in Python's decoder. */
static inline int wide_class(const uint8_t *p, const uint8_t *end, int *size) {
    uint8_t a = p[0];
    *size = 1;
    if (a < 0xC2 || a > 0xF4 || end - p < 2 || !continues(p[1])) return BROKEN;
    if (a < 0xE0) {
        *size = 2;
        return unicode_class((a & 0x1Fu) << 6 | (p[1] & 0x3Fu));
    }
    if (end - p < 3 || !continues(p[2])) return BROKEN;
    if (a < 0xF0) {
        uint32_t point = (a & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
        if (point < 0x800 || (point >= 0xD800 && point < 0xE000)) return BROKEN;
        *size = 3;
        return unicode_class(point);
    }
    if (end - p < 4 || !continues(p[3])) return BROKEN;
    uint32_t point =
        (a & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
    if (point < 0x10000 || point > 0x10FFFF) return BROKEN;
    *size = 4;
    return unicode_class(point);
}

/* The class of the character at p < end, and its size in bytes. */
static inline int class_at(const uint8_t *p, const uint8_t *end, int *size) {
    *size = 1;
    return *p < 128 ? ASCII_CLASS[*p] : wide_class(p, end, size);
}

/* How many of eight bytes are ASCII letters before the first that is not. The sums carry into the
   top bit of a byte where it is at least 'a', or above 'z'; they cannot leave their byte. */
static inline int leading_letters(uint64_t bytes) {
    const uint64_t each = 0x0101010101010101u;
    uint64_t low = (bytes | each * 0x20) & each * 0x7F;
    uint64_t letters = (low + each * (128 - 'a')) & ~(low + each * (127 - 'z')) & ~bytes;
    uint64_t others = ~letters & each * 0x80;
    return others ? __builtin_ctzll(others) >> 3 : 8;
}

/* The end of the run of one class that goes on at p. */
static inline const uint8_t *run_end(const uint8_t *p, const uint8_t *end, int kind) {
    int size;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (kind == LETTER)
        for (uint64_t bytes; end - p >= 8; p += 8) {
            memcpy(&bytes, p, 8);
            int letters = leading_letters(bytes);
            if (letters < 8) {
                p += letters;
                break;
            }
        }
#endif
    while (p < end && class_at(p, end, &size) == kind) p += size;
    return p;
}

/* The end of the contraction at p, or NULL: 's 't 're 've 'm 'll 'd in lower case. */
static inline const uint8_t *contraction_end(const uint8_t *p, const uint8_t *end) {
    if (end - p < 2) return NULL;
    switch (p[1]) {
    case 's': case 't': case 'm': case 'd': return p + 2;
    case 'r': case 'v': return end - p > 2 && p[2] == 'e' ? p + 3 : NULL;
    case 'l': return end - p > 2 && p[2] == 'l' ? p + 3 : NULL;
    default: return NULL;
    }
}

/* White space at p: all of it at the end of a text, else all but the character before the word. */
static inline const uint8_t *space_end(const uint8_t *p, const uint8_t *end) {
    const uint8_t *last = p, *q = p;
    int size, kind = SPACE;
    while (q < end && (kind = class_at(q, end, &size)) == SPACE) {
        last = q;
        q += size;
    }
    return q == end || kind == BROKEN || last == p ? q : last;
}

/* The end of the piece that starts at p < end. */
static inline const uint8_t *piece_end(const uint8_t *p, const uint8_t *end) {
    if (*p == '\'') {
        const uint8_t *contraction = contraction_end(p, end);
        if (contraction) return contraction;
    }
    const uint8_t *word = p + (*p == ' ' && end - p > 1); /* a piece may have a leading space */
    int size, kind = class_at(word, end, &size);
    if (kind == SPACE || (kind == BROKEN && word > p)) return space_end(p, end);
    return run_end(word + size, end, kind);
}

#ifdef __SSE2__
/* 64 characters by class, a bit for each, the first lowest. Bytes that are not ASCII are `wide`, and
   their other bits mean nothing. */
typedef struct {
    uint64_t letter, number, space, blank, quote, wide;
} Classes;

static inline Classes classify(const uint8_t *p) {
    Classes c = {0, 0, 0, 0, 0, 0};
    for (int part = 0; part < 64; part += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(p + part));
        /* A range of bytes, moved to the lowest signed values, is what lies below its length. */
#define WITHIN(v, first, count) \
    _mm_cmplt_epi8(_mm_sub_epi8(v, _mm_set1_epi8((char)((first) + 128))), \
                   _mm_set1_epi8((char)((count) - 128)))
#define BITS(v) ((uint64_t)(uint32_t)_mm_movemask_epi8(v) << part)
        __m128i blank = _mm_cmpeq_epi8(v, _mm_set1_epi8(' '));
        c.letter |= BITS(WITHIN(_mm_or_si128(v, _mm_set1_epi8(0x20)), 'a', 26));
        c.number |= BITS(WITHIN(v, '0', 10));
        c.space |= BITS(_mm_or_si128(blank, WITHIN(v, '\t', 5)));
        c.blank |= BITS(blank);
        c.quote |= BITS(_mm_cmpeq_epi8(v, _mm_set1_epi8('\'')));
        c.wide |= BITS(v);
#undef WITHIN
#undef BITS
    }
    return c;
}

/* Where pieces start in the 64 bytes after a start p: bit i for p + i, as far as is certain. */
static inline uint64_t starts_within(const uint8_t *p) {
    Classes c = classify(p);
    int known = c.wide ? __builtin_ctzll(c.wide) : 64;
    if (known < 8) return 0;
    uint64_t other = ~(c.letter | c.number | c.space);
    uint64_t goes_on = (c.letter & c.letter << 1) | (c.number & c.number << 1) |
                       (other & other << 1) | (~c.space & c.blank << 1);
    uint64_t space_starts = c.space & (~(c.space << 1) | ~(c.space >> 1));
    uint64_t starts = (~c.space & ~goes_on) | space_starts;
    for (uint64_t left = starts & c.quote; left; left &= left - 1) {
        int i = __builtin_ctzll(left);
        const uint8_t *contraction = i + 4 <= known ? contraction_end(p + i, p + known) : NULL;
        if (!contraction) continue;
        starts &= ~(2ull << i);
        starts |= 1ull << (contraction - p);
    }
    /* What a start depends on lies at most three characters ahead. */
    return starts & ((1ull << (known - 4)) - 1) & ~1ull;
}
#endif

#define CUT_MORE 64

/* Ends of the pieces from p on, until there are `most`; up to CUT_MORE more may be written. Returns
   how many there are, at least one for a p < end. */
static inline int cut(const uint8_t *p, const uint8_t *end, const uint8_t **ends, int most) {
    int count = 0;
    while (p < end && count < most) {
#ifdef __SSE2__
        if (end - p >= 64) {
            uint64_t starts = starts_within(p);
            int found = __builtin_popcountll(starts);
            for (int k = 0; k < found; k += 4) /* by fours, the last in vain: a branch less each */
                for (int more = 0; more < 4; more++, starts &= starts - 1)
                    ends[count + k + more] = p + __builtin_ctzll(starts | 1ull << 63);
            if (found) {
                p = ends[(count += found) - 1];
                continue;
            }
        }
#endif
        p = ends[count++] = piece_end(p, end);
    }
    return count;
}
#endif
