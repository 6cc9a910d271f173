// GELU, x P(x) with the normal distribution P, and its gradient P(x) + x p(x).
#include "simd.h"

// P(x), by Abramowitz and Stegun 7.1.26 within 1e-7, and the density p(x).
static void normal(Floats x, Floats& below, Floats& density) {
    Floats size = x < 0 ? -x : x, e = exp_of(x * x * -0.5f), t = 1.0f / (size * (0.3275911f * 0.70710678f) + 1.0f);
    Floats p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = (p * t + 0.254829592f) * t * e * 0.5f;
    below = x < 0 ? p : 1.0f - p;
    density = e * 0.39894228f;
}

// Write the function of x, or where d_y is given its gradient by x.
template <class T>
static void run(const T* x, const T* d_y, long count, T* to, int threads) {
    auto one = [&](const T* x, const T* d_y, T* to) {
        Floats at = fetch(x), below, density;
        normal(at, below, density);
        put(to, d_y ? fetch(d_y) * (below + at * density) : at * below);
    };
    const long whole = count / LANES * LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (long i = 0; i < whole; i += LANES) one(x + i, d_y ? d_y + i : nullptr, to + i);
    if (whole < count) {
        T own[3][LANES] = {};
        std::memcpy(own[0], x + whole, (count - whole) * sizeof(T));
        if (d_y) std::memcpy(own[1], d_y + whole, (count - whole) * sizeof(T));
        one(own[0], d_y ? own[1] : nullptr, own[2]);
        std::memcpy(to + whole, own[2], (count - whole) * sizeof(T));
    }
}

extern "C" void gelu(const void* x, const void* d_y, bool low, long count, void* to, int threads) {
    if (low)
        run((const bf16*)x, (const bf16*)d_y, count, (bf16*)to, threads);
    else
        run((const float*)x, (const float*)d_y, count, (float*)to, threads);
}
