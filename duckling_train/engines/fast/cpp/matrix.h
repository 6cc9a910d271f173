// Products of matrices in panels: a panel holds COLUMNS columns, row after row in groups of GROUP, so that a tile reads
// it from start to end. Behind the last row and column are zeros.
#pragma once
#include "simd.h"

template <class T>
constexpr long DEPTH = 512 / sizeof(T);  // rows of a panel that stay in the L1 cache

// Copy some of `rows` rows, from the first one on, of `width` numbers, `stride` apart, to rows of `wide` numbers.
template <class IO, class T>
void copy_rows(const IO* from, long rows, long width, long stride, long first, long count, T* to, long wide) {
    for (long i = 0; i < count; i++) {
        const long given = first + i < rows ? width : 0;
        const IO* row = from + (first + i) * stride;
        if constexpr (sizeof(IO) == sizeof(T))
            std::memcpy(to + i * wide, row, given * sizeof(T));
        else
            for (long j = 0; j < given; j++) set(to[i * wide + j], as_float(row[j]));
        std::memset(to + i * wide + given, 0, (wide - given) * sizeof(T));
    }
}

// Write GROUP rows, `stride` apart, of some columns to their place in panels of `tall` rows.
template <class T>
void to_panels(const T* from, long stride, long columns, T* to, long tall) {
    for (long j = 0; j < columns; j += LANES)
        interleave(to + j / COLUMNS * COLUMNS * tall + j % COLUMNS * GROUP<T>, from + j,
                   from + (GROUP<T> - 1) * stride + j);
}

// Write COLUMNS rows of wide numbers to the panel whose columns they are.
template <class T>
void to_columns(const T* from, long wide, T* to) {
    for (long j = 0; j < wide; j += GROUP<T>)
        for (long c = 0; c < COLUMNS; c++, to += GROUP<T>) std::memcpy(to, from + c * wide + j, GROUP<T> * sizeof(T));
}

// a b for rows of a, each `wide` numbers, and panels of b, `tall` rows high, of which the first k are used.
template <class T, class Done>
inline void multiply(const T* a, long rows, long wide, const T* b, long columns, long tall, long k, Done done) {
    for (long j = 0; j < columns; j += COLUMNS)
        for (long i = 0; i < rows; i += ROWS)
            tile(a + i * wide, wide, GROUP<T>, b + j * tall, COLUMNS, k / GROUP<T>,
                 [&](int r, Floats x, Floats y) { done(i + r, j, x, y); });
}

// Write, or add, as many of the COLUMNS numbers as there are.
inline void write_some(float* to, long count, Floats x, Floats y, bool more) {
    float own[COLUMNS] = {};
    float* at = count < COLUMNS ? own : to;
    if (more && at == own) std::memcpy(own, to, count * 4);
    store(at, more ? load<Floats>(at) + x : x);
    store(at + LANES, more ? load<Floats>(at + LANES) + y : y);
    if (at == own) std::memcpy(to, own, count * 4);
}

// The transpose of a times b, both in panels of `tall` rows of which count are used: COLUMNS rows of it, or as many as
// there are, from a's panel. Written to, or added to, [rows, columns].
template <class T>
void transposed_product(const T* a, const T* b, long tall, long count, long rows, long columns, float* to, bool more) {
    for (long k = 0; k < count; k += DEPTH<T>)
        for (long j = 0; j < columns; j += COLUMNS)
            for (long i = 0; i < std::min<long>(rows, COLUMNS); i += ROWS)
                tile(a + k * COLUMNS + i * GROUP<T>, GROUP<T>, COLUMNS * GROUP<T>, b + j * tall + k * COLUMNS, COLUMNS,
                     std::min(DEPTH<T>, count - k) / GROUP<T>, [&](int r, Floats x, Floats y) {
                         if (i + r < rows) write_some(to + (i + r) * columns + j, columns - j, x, y, more || k);
                     });
}
