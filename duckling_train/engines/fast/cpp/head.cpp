// The softmax over the vocabulary and its gradients: head.py says what is computed. A thread takes a block of rows
// through their logits, softmax and gradient, which stay in its L2 cache; the gradient by W follows from all rows of a
// part.
#include "matrix.h"

// The gradients by the logits that are kept for the gradient by W: so many bytes, but for so many blocks at least,
// which threads share. What is summed together does not depend on the number of threads.
constexpr long PART = 2l << 20, FEWEST = 16;

template <class T, class IO>
struct Head {
    const T* hidden;         // [rows, width]
    const IO* weight;        // [vocabulary, width]
    const int64_t* targets;  // [rows], -1 for none
    long rows, vocabulary, width;
    float factor;
    bool low;  // whether numbers are rounded to bf16, which float32 may hold
    float *d_hidden, *d_weight, *losses;
    float* totals;  // [rows / BLOCK, vocabulary], or none: what is summed apart does not depend on the threads
    int threads;
    bool round() const { return low && sizeof(T) == 4; }
    static constexpr long G = GROUP<T>, BLOCK = 64 / sizeof(T);  // rows that a thread takes at once
    // Vocabulary and width with the padding of panels.
    long tall() const { return up(vocabulary, DEPTH<T>); }
    long wide() const { return up(width, COLUMNS); }
    // Of the logits in memory: rows a multiple of 4096 bytes apart would fall into the same sets of a cache.
    long stride() const { return tall() + COLUMNS * G; }

    void run() const {
        const long most = std::max(up(PART / (tall() * (long)sizeof(T)), BLOCK), FEWEST * BLOCK),
                   part = std::min(up(rows, BLOCK), most);
        T* forward = (T*)scratch<0>((2 * tall() * wide() + part * (tall() + wide())) * sizeof(T));
        T *backward = forward + tall() * wide(), *kept = backward + tall() * wide(),
          *hidden_panels = kept + part * tall();
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static)
            for (long j = 0; j < tall(); j += COLUMNS) pack(j, forward, backward);
            for (long first = 0; first < rows; first += part) {
                const long count = std::min(part, rows - first);
#pragma omp for schedule(dynamic)
                for (long i = 0; i < count; i += BLOCK) block(first, i, forward, backward, kept, hidden_panels, part);
#pragma omp for schedule(static)  // a thread goes through memory in order
                for (long j = 0; j < vocabulary; j += COLUMNS) {
                    float* to = d_weight + j * width;
                    transposed_product(kept + j * part, hidden_panels, part, up(count, BLOCK), vocabulary - j, width,
                                       to, first > 0);
                    if (first + count == rows) finish(to, std::min<long>(COLUMNS, vocabulary - j) * width, to);
                }
            }
        }
    }

    // Copy sums, rounded where numbers are.
    void finish(const float* from, long count, float* to) const {
        bf16 nearest;
        for (long i = 0; i < count; i++) {
            if (low) set(nearest, from[i]);
            to[i] = low ? as_float(nearest) : from[i];
        }
    }

    // COLUMNS rows of W, as columns for the logits and as rows for the gradient by the hidden states.
    void pack(long j, T* forward, T* backward) const {
        T* own = (T*)scratch<1>(COLUMNS * wide() * sizeof(T));
        copy_rows(weight, vocabulary, width, width, j, COLUMNS, own, wide());
        if (round())
            for (long i = 0; i < COLUMNS * wide(); i += LANES) put(own + i, rounded(fetch(own + i)));
        to_columns(own, wide(), forward + j * wide());
        for (long c = 0; c < COLUMNS; c += G)
            to_panels(own + c * wide(), wide(), wide(), backward + (j + c) * COLUMNS, tall());
    }

    void block(long first, long begin, const T* forward, const T* backward, T* kept, T* hidden_panels,
               long part) const {
        T* own = (T*)scratch<1>(BLOCK * (wide() + stride()) * sizeof(T) + (2 * tall() + BLOCK * wide()) * 4);
        T* logits = own + BLOCK * wide();
        float *e = (float*)(logits + BLOCK * stride()), *sums = e + 2 * tall();
        copy_rows(hidden, rows, width, width, first + begin, BLOCK, own, wide());
        for (long i = 0; i < BLOCK; i += G)
            to_panels(own + i * wide(), wide(), wide(), hidden_panels + (begin + i) * COLUMNS, part);
        multiply(own, BLOCK, wide(), forward, tall(), wide(), wide(), [&](long i, long j, Floats x, Floats y) {
            put(logits + i * stride() + j, round() ? rounded(x) : x);
            put(logits + i * stride() + j + LANES, round() ? rounded(y) : y);
        });
        for (long i = 0; i < BLOCK; i += G) {
            float factors[2] = {};
            for (long g = 0; g < G; g++)
                factors[g] = softmax(first + begin + i + g, logits + (i + g) * stride(), e + g * tall());
            T* to = kept + (begin + i) * COLUMNS;
            for (long j = 0; j < tall(); j += LANES) {
                Floats x[2] = {};
                for (long g = 0; g < G; g++) {
                    x[g] = load<Floats>(e + g * tall() + j) * factors[g];
                    if (round()) x[g] = rounded(x[g]);
                    put(logits + (i + g) * stride() + j, x[g]);
                }
                put_group(to + j / COLUMNS * COLUMNS * part + j % COLUMNS * G, x[0], x[1]);
            }
        }
        for (long k = 0; k < tall(); k += DEPTH<T>)
            multiply(
                logits + k, BLOCK, stride(), backward + k * COLUMNS, wide(), tall(), DEPTH<T>,
                [&](long i, long j, Floats x, Floats y) { write_some(sums + i * wide() + j, COLUMNS, x, y, k > 0); });
        for (long i = 0; i < std::min(BLOCK, rows - first - begin); i++)
            finish(sums + i * wide(), width, d_hidden + (first + begin + i) * width);
    }

    // exp(z - max z) with its sum taken off at the target, in e, and the loss. Returns what makes e the gradient.
    float softmax(long row, const T* z, float* e) const {
        const long target = row < rows ? targets[row] : -1, whole = vocabulary / LANES * LANES;
        Floats most = all(-INFINITY), sums = {};
        for (long j = 0; j < whole; j += LANES) {
            Floats x = fetch(z + j);
            most = x > most ? x : most;
        }
        float highest = largest(most);
        for (long j = whole; j < vocabulary; j++) {
            float x = as_float(z[j]);
            highest = std::max(highest, x);
        }
        for (long j = 0; j < whole; j += LANES) {
            Floats x = exp_of(fetch(z + j) - highest);
            store(e + j, x);
            sums += x;
        }
        float sum_of_all = sum(sums);
        for (long j = whole; j < vocabulary; j++) sum_of_all += e[j] = exp_of(all(as_float(z[j]) - highest))[0];
        std::memset(e + vocabulary, 0, (tall() - vocabulary) * 4);
        if (row < rows) losses[row] = target < 0 ? 0 : std::log(sum_of_all) - (as_float(z[target]) - highest);
        if (target < 0) return 0;
        if (totals) {
            float* total = totals + row / BLOCK * vocabulary;
            for (long j = 0; j < vocabulary; j++) total[j] += e[j] / sum_of_all;
        }
        e[target] -= sum_of_all;
        return factor / sum_of_all;
    }
};

template <class T, class IO>
static void run(const void* hidden, const void* weight, const int64_t* targets, bool low, long rows, long vocabulary,
                long width, float* d_hidden, float* d_weight, float* losses, float* totals, int threads) {
    Head<T, IO>{(const T*)hidden, (const IO*)weight, targets, rows,   vocabulary, width, 1.0f / rows, low,
                d_hidden,         d_weight,          losses,  totals, threads}
        .run();
}

extern "C" void head(const void* hidden, const void* weight, bool low_weight, const int64_t* targets, bool low,
                     bool native, long rows, long vocabulary, long width, float* d_hidden, float* d_weight,
                     float* losses, float* totals, int threads) {
    auto kind = native       ? low_weight ? run<bf16, bf16> : run<bf16, float>
                : low_weight ? run<float, bf16>
                             : run<float, float>;
    kind(hidden, weight, targets, low, rows, vocabulary, width, d_hidden, d_weight, losses, totals, threads);
}

extern "C" bool has_bf16() {
#ifdef __AVX512BF16__
    return true;
#else
    return false;
#endif
}

extern "C" bool has_amx() {
#ifdef __AMX_BF16__
    return true;
#else
    return false;
#endif
}
