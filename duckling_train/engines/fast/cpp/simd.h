// Vectors as wide as the processor's, exp, rounding to bf16, and a product of matrices that stays in registers.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/mman.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8;
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 4;
#else
constexpr int LANES = 4, ROWS = 4;
#endif
constexpr int COLUMNS = 2 * LANES;  // a tile of ROWS x COLUMNS sums fits in the registers

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint16_t bf16;
template <class T>
constexpr int GROUP = sizeof(T) == 2 ? 2 : 1;  // neighbours that one instruction multiplies and adds

template <class V>
inline V load(const void* at) {
    V v;
    std::memcpy(&v, at, sizeof v);
    return v;
}
template <class V>
inline void store(void* at, V v) {
    std::memcpy(at, &v, sizeof v);
}

// The bits of the nearest bf16, ties to even. NaN stays NaN.
inline Ints nearest(Floats x) {
#ifdef __AVX512BF16__
    return (Ints)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
    Ints bits = (Ints)x;
    return x == x ? (bits + ((bits >> 16) & 1) + 0x7fff) >> 16 : (bits >> 16) | 0x40;
#endif
}
inline Floats rounded(Floats x) { return (Floats)(nearest(x) << 16); }

inline Floats fetch(const float* at) { return load<Floats>(at); }
inline Floats fetch(const bf16* at) { return (Floats)(__builtin_convertvector(load<Halves>(at), Ints) << 16); }
inline void put(float* at, Floats x) { store(at, x); }
inline void put(bf16* at, Floats x) {
#ifdef __AVX512BF16__
    store(at, _mm512_cvtneps_pbh((__m512)x));
#else
    store(at, __builtin_convertvector(nearest(x), Halves));
#endif
}

inline float as_float(float x) { return x; }
inline float as_float(bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    return load<float>(&bits);
}
inline void set(float& to, float x) { to = x; }
inline void set(bf16& to, float x) {
    uint32_t bits = load<uint32_t>(&x);
    to = x == x ? (bits + ((bits >> 16) & 1) + 0x7fff) >> 16 : (bits >> 16) | 0x40;
}

inline Floats all(float x) { return Floats{} + x; }
inline float sum(Floats x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}
inline float largest(Floats x) {
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
}

// exp of x <= 0, within 2 ULP: 2^n times a polynomial of the rest (Cephes). 0 below -87.
inline Floats exp_of(Floats x) {
    const Floats magic = all(12582912.0f);  // 1.5 * 2^23: a sum with it is rounded to an integer, in its last bits
    Floats shifted = x * 1.44269504f + magic, n = shifted - magic;
    Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    Ints scale = ((Ints)shifted << 23) + (127 << 23);
    return x < -87.0f ? Floats{} : p * (Floats)scale;
}

inline Floats multiplied(const float* a, Floats b, Floats c) { return c + *a * b; }
inline Floats multiplied(const bf16* a, Floats b, Floats c) {  // two products of neighbours
#ifdef __AVX512BF16__
    return (Floats)_mm512_dpbf16_ps((__m512)c, (__m512bh)_mm512_set1_epi32(load<int32_t>(a)), (__m512bh)b);
#else
    return c;  // never called: see has_bf16
#endif
}

// The product of ROWS rows of a and COLUMNS columns of b, in registers. Row i of a begins at a + i * row, its k groups
// are `step` apart; those of b are `width` columns apart, each column's group together. done(i, sums of the first LANES
// columns, of the others) takes each row.
template <class T, class Done>
inline void tile(const T* a, long row, long step, const T* b, long width, long k, Done done) {
    Floats sums[ROWS][2] = {};
    for (long p = 0; p < k; p++, a += step, b += width * GROUP<T>) {
        Floats b0 = load<Floats>(b), b1 = load<Floats>(b + LANES * GROUP<T>);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            sums[i][0] = multiplied(a + i * row, b0, sums[i][0]);
            sums[i][1] = multiplied(a + i * row, b1, sums[i][1]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) done(i, sums[i][0], sums[i][1]);
}

inline long up(long n, long to) { return (n + to - 1) / to * to; }

// Two rows of numbers as operands: in bf16 neighbours, x first.
inline void put_group(float* to, Floats x, Floats) { store(to, x); }
inline void put_group(bf16* to, Floats x, Floats y) { store(to, nearest(y) << 16 | (nearest(x) & 0xffff)); }

// The same of two rows of operands.
inline void interleave(float* to, const float* x, const float*) { store(to, fetch(x)); }
inline void interleave(bf16* to, const bf16* x, const bf16* y) {
    auto widened = [](const bf16* at) { return __builtin_convertvector(load<Halves>(at), Ints); };
    store(to, widened(y) << 16 | widened(x));
}

// Memory of the calling thread, kept between calls. In huge pages where the system has them: with small ones the sets
// of the L2 cache that it falls into, and so the time of a step, differ from process to process.
constexpr size_t PAGE = 2 << 20;
template <int WHICH>
inline char* scratch(size_t bytes) {
    struct Kept {
        char* at = nullptr;
        size_t bytes = 0;
        ~Kept() { std::free(at); }
    };
    thread_local Kept kept;
    if (kept.bytes < bytes) {
        std::free(kept.at);
        kept.bytes = (bytes + PAGE - 1) / PAGE * PAGE;
        kept.at = (char*)std::aligned_alloc(PAGE, kept.bytes);
        if (!kept.at) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(kept.at, kept.bytes, MADV_HUGEPAGE);
#endif
    }
    return kept.at;
}
