// Causal attention: attention.py says what is computed. A pair is a head of a sequence; its matrices are copied to
// where tiles read them, zeros behind the context and the head's width.
#include "matrix.h"

constexpr long BLOCK = 64;  // queries, or keys, that a thread takes at once

struct Shape {
    long sequences, heads, context, width;
    // Context and width with the padding of blocks and panels, and the size of a matrix of them.
    long padded() const { return up(context, BLOCK); }
    long wide() const { return up(width, COLUMNS); }
    long matrix() const { return padded() * wide(); }
    long pairs() const { return sequences * heads; }
};

// Where element 0 of a pair's queries (0), keys (1) or values (2) is in [sequences, context, 3, heads, width].
static long of_joined(const Shape& s, long pair, int which) {
    return (pair / s.heads * s.context * 3 + which) * s.heads * s.width + pair % s.heads * s.width;
}
static long of_out(const Shape& s, long pair) {
    return (pair / s.heads * s.context * s.heads + pair % s.heads) * s.width;
}

// Copy COLUMNS rows, from the given one on, of [context, width] to the same rows of a matrix that is PLAIN; its panels
// in ROWWISE; those of its transpose in COLUMNWISE.
enum Layout { PLAIN, ROWWISE, COLUMNWISE };
template <class IO, class T>
static void copy(Layout layout, const IO* from, long stride, long begin, const Shape& s, T* to) {
    const long wide = s.wide();
    T* own = layout == PLAIN ? to + begin * wide : (T*)scratch<1>(COLUMNS * wide * sizeof(T));
    copy_rows(from, s.context, s.width, stride, begin, COLUMNS, own, wide);
    if (layout == COLUMNWISE) to_columns(own, wide, to + begin * wide);
    if (layout == ROWWISE)
        for (long i = 0; i < COLUMNS; i += GROUP<T>)
            to_panels(own + i * wide, wide, wide, to + (begin + i) * COLUMNS, s.padded());
}
template <class IO>
static void write(const float* from, long wide, IO* to, long stride, long rows, long width, float scale) {
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < width; j++) set(to[i * stride + j], from[i * wide + j] * scale);
}

// c[BLOCK, columns] = a b, for rows of a and panels of b, `tall` rows high, of which the first k are used.
template <class T>
static void product(const T* a, long wide, const T* b, long columns, long tall, long k, float* c, long stride) {
    multiply(a, BLOCK, wide, b, columns, tall, k, [=](long i, long j, Floats x, Floats y) {
        store(c + i * stride + j, x);
        store(c + i * stride + j + LANES, y);
    });
}

// Set the scores of one query that it does not attend to.
static void hide(float* scores, long query, long end, const bool* mask, long context) {
    for (long j = mask ? 0 : query + 1; j < end; j++)
        if (!mask || j >= context || !mask[query * context + j]) scores[j] = -INFINITY;
}

// The matrices of a pair that backward makes, in the order in which they are kept; behind them p and the gradient by
// the scores, each [padded, padded].
enum { QUERY, QUERY_PANELS, KEY_COLUMNS, KEY_PANELS, VALUE_COLUMNS, D_OUT, D_OUT_PANELS, MATRICES };
constexpr Layout LAYOUTS[] = {PLAIN, ROWWISE, COLUMNWISE, ROWWISE, COLUMNWISE, PLAIN, ROWWISE};

template <class IO, class T>
struct Attention {
    Shape s;
    const IO* joined;
    const bool* mask;  // [sequences, context, context] or none
    float scale;
    static constexpr bool ROUND = sizeof(IO) == 2 && sizeof(T) == 4;
    static Floats operand(Floats x) { return ROUND ? rounded(x) : x; }
    const bool* mask_of(long pair) const { return mask ? mask + pair / s.heads * s.context * s.context : nullptr; }

    void forward(IO* out, float* logs, int threads) const {
        const long tall = s.padded(), wide = s.wide(), blocks = tall / BLOCK, side = 3 * s.heads * s.width;
        T* all_packed = (T*)scratch<0>(3 * threads * s.matrix() * sizeof(T));
#pragma omp parallel num_threads(threads)
        for (long first = 0; first < s.pairs(); first += threads) {
            const long count = std::min<long>(threads, s.pairs() - first);
#pragma omp for schedule(dynamic)
            for (long n = 0; n < count * 3 * tall / COLUMNS; n++) {
                const long m = n / (tall / COLUMNS) % 3, pair = n / (tall / COLUMNS) / 3,
                           begin = n % (tall / COLUMNS) * COLUMNS;
                copy(m == 0   ? PLAIN
                     : m == 1 ? COLUMNWISE
                              : ROWWISE,
                     joined + of_joined(s, first + pair, m), side, begin, s, all_packed + (3 * pair + m) * s.matrix());
            }
#pragma omp for schedule(dynamic)
            for (long n = 0; n < count * blocks; n++) {
                const long pair = first + n % count, begin = (blocks - 1 - n / count) * BLOCK, end = begin + BLOCK;
                const T* q = all_packed + 3 * (n % count) * s.matrix();
                float* scores = (float*)scratch<1>(BLOCK * (tall + wide) * 4 + BLOCK * tall * sizeof(T));
                float* mixed = scores + BLOCK * tall;
                T* p = (T*)(mixed + BLOCK * wide);
                product(q + begin * wide, wide, q + s.matrix(), end, wide, wide, scores, tall);
                for (long i = 0; i < BLOCK; i++)
                    softmax(scores + i * tall, begin + i, end, mask_of(pair), p + i * tall, logs + pair * s.context);
                product(p, tall, q + 2 * s.matrix(), wide, tall, end, mixed, wide);
                IO* to = out + of_out(s, pair) + begin * s.heads * s.width;
                write(mixed, wide, to, s.heads * s.width, std::min(BLOCK, s.context - begin), s.width, 1);
            }
        }
    }

    void softmax(float* z, long query, long end, const bool* hidden, T* p, float* logs) const {
        if (query >= s.context) {
            std::memset(p, 0, end * sizeof(T));
            return;
        }
        hide(z, query, end, hidden, s.context);
        Floats most = all(-INFINITY), sums = {};
        for (long j = 0; j < end; j += LANES) {
            Floats x = load<Floats>(z + j);
            most = x > most ? x : most;
        }
        const float highest = largest(most) * scale;
        for (long j = 0; j < end; j += LANES) {
            Floats e = exp_of(load<Floats>(z + j) * scale - highest);
            store(z + j, e);
            sums += e;
        }
        const float total = sum(sums);
        for (long j = 0; j < end; j += LANES) put(p + j, operand(load<Floats>(z + j) / total));
        logs[query] = highest + std::log(total);
    }

    void backward(const IO* d_out, const float* logs, IO* d_joined, int threads) const {
        const long tall = s.padded(), blocks = tall / BLOCK, side = 3 * s.heads * s.width;
        const long square = tall * tall, each = MATRICES * s.matrix() + 2 * square;
        T* all_packed = (T*)scratch<0>(threads * each * sizeof(T));
#pragma omp parallel num_threads(threads)
        for (long first = 0; first < s.pairs(); first += threads) {
            const long count = std::min<long>(threads, s.pairs() - first);
#pragma omp for schedule(dynamic)
            for (long n = 0; n < count * MATRICES * tall / COLUMNS; n++) {
                const long m = n / (tall / COLUMNS) % MATRICES, pair = n / (tall / COLUMNS) / MATRICES,
                           begin = n % (tall / COLUMNS) * COLUMNS;
                T* to = all_packed + pair * each + m * s.matrix();
                if (m < D_OUT)
                    copy(LAYOUTS[m], joined + of_joined(s, first + pair, m / 2), side, begin, s, to);
                else
                    copy(LAYOUTS[m], d_out + of_out(s, first + pair), s.heads * s.width, begin, s, to);
            }
#pragma omp for schedule(dynamic)
            for (long n = 0; n < count * blocks; n++) {
                const long pair = first + n % count, begin = (blocks - 1 - n / count) * BLOCK;
                T* packed = all_packed + n % count * each;
                queries(packed, pair, begin, logs, d_joined + of_joined(s, pair, 0));
            }
#pragma omp for schedule(dynamic)
            for (long n = 0; n < count * blocks; n++) {
                const long pair = first + n % count, begin = n / count * BLOCK;
                keys(all_packed + n % count * each, begin, d_joined + of_joined(s, pair, 1));
            }
        }
    }

    // The gradient of a block of queries; p and the gradient by the scores are kept for those of the keys and values.
    void queries(T* packed, long pair, long begin, const float* logs, IO* d_query) const {
        const long tall = s.padded(), wide = s.wide(), end = begin + BLOCK, m = s.matrix(),
                   side = 3 * s.heads * s.width;
        float* scores = (float*)scratch<1>(BLOCK * (2 * tall + wide) * 4 + 2 * BLOCK * tall * sizeof(T));
        float *d_p = scores + BLOCK * tall, *d_q = d_p + BLOCK * tall;
        T *p = (T*)(d_q + BLOCK * wide), *d_scores = p + BLOCK * tall, *kept = packed + MATRICES * m;
        product(packed + begin * wide, wide, packed + KEY_COLUMNS * m, end, wide, wide, scores, tall);
        product(packed + D_OUT * m + begin * wide, wide, packed + VALUE_COLUMNS * m, end, wide, wide, d_p, tall);
        for (long i = 0; i < BLOCK; i++) {
            float *z = scores + i * tall, *d = d_p + i * tall, log = 0;
            const long query = begin + i;
            if (query < s.context) {
                hide(z, query, end, mask_of(pair), s.context);
                log = logs[pair * s.context + query];
            } else
                std::fill(z, z + end, -INFINITY);
            Floats sums = {};
            for (long j = 0; j < end; j += LANES) {
                Floats e = exp_of(load<Floats>(z + j) * scale - log);
                store(z + j, e);
                put(p + i * tall + j, operand(e));
                sums += e * load<Floats>(d + j);
            }
            const float total = sum(sums);
            for (long j = 0; j < end; j += LANES)
                put(d_scores + i * tall + j, operand(load<Floats>(z + j) * (load<Floats>(d + j) - total)));
        }
        for (long i = 0; i < BLOCK; i += GROUP<T>) {
            to_panels(p + i * tall, tall, end, kept + (begin + i) * COLUMNS, tall);
            to_panels(d_scores + i * tall, tall, end, kept + tall * tall + (begin + i) * COLUMNS, tall);
        }
        product(d_scores, tall, packed + KEY_PANELS * m, wide, tall, end, d_q, wide);
        write(d_q, wide, d_query + begin * side, side, std::min(BLOCK, s.context - begin), s.width, scale);
    }

    // The gradients of a block of keys and of its values, from the queries of this block and the later ones.
    void keys(const T* packed, long begin, IO* d_key) const {
        const long tall = s.padded(), wide = s.wide(), m = s.matrix(), side = 3 * s.heads * s.width;
        float* sums = (float*)scratch<1>(BLOCK * wide * 4);
        for (long of_value = 0; of_value < 2; of_value++) {
            const T* kept = packed + MATRICES * m + (of_value ? 0 : tall * tall) + begin * COLUMNS;
            const T* by = packed + (of_value ? D_OUT_PANELS : QUERY_PANELS) * m + begin * COLUMNS;
            for (long j = 0; j < BLOCK; j += COLUMNS)
                transposed_product(kept + (begin + j) * tall, by, tall, tall - begin, COLUMNS, wide, sums + j * wide,
                                   false);
            IO* to = d_key + begin * side + of_value * s.heads * s.width;
            write(sums, wide, to, side, std::min(BLOCK, s.context - begin), s.width, of_value ? 1 : scale);
        }
    }
};

template <class IO, class T>
static void run(const void* joined, const bool* mask, Shape s, void* out, float* logs, const void* d_out,
                void* d_joined, int threads) {
    Attention<IO, T> a{s, (const IO*)joined, mask, 1 / std::sqrt((float)s.width)};
    if (d_out)
        a.backward((const IO*)d_out, logs, (IO*)d_joined, threads);
    else
        a.forward((IO*)out, logs, threads);
}

// Forward without d_out: writes out and logs, the logarithms of the softmax's sums; else backward.
extern "C" void attention(const void* joined, const bool* mask, bool low, bool native, long sequences, long heads,
                          long context, long width, void* out, float* logs, const void* d_out, void* d_joined,
                          int threads) {
    Shape s{sequences, heads, context, width};
    auto kind = !low ? run<float, float> : native ? run<bf16, bf16> : run<bf16, float>;
    kind(joined, mask, s, out, logs, d_out, d_joined, threads);
}
