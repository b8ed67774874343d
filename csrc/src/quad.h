// Registers of four floats by name, where what a compiler makes of loops is not enough: one rotation or one vector in one, for turns
// that follow each other; or one number of four things, for long formulas with choices. RTI_NO_QUADS, and processors whose registers
// are not written down here, have plain floats instead.
#pragma once

#include <cstring>

#include "machine.h"
#include "math.h"

#if (defined(__SSE2__) || defined(_M_X64)) && !defined(RTI_NO_QUADS)
#  define RTI_QUADS 1
#  include <emmintrin.h>
#endif

namespace rti {

// A vector in memory that is read and written as one.
struct alignas(16) Place : Vec3 {
    float none = 0;
    Place() = default;
    Place(Vec3 p) noexcept : Vec3(p) {}
};

#if defined(RTI_QUADS)

// w, x, y, z.
struct Quad {
    __m128 v;
};

// x, y, z, and a fourth that is of no account.
struct Triple {
    __m128 v;
};

// One number each of four things.
struct Four {
    __m128 v;
};

// The lanes that these four come from, first to last.
template <int a, int b, int c, int d>
RTI_INLINE __m128 lanes_of(__m128 v) noexcept { return _mm_shuffle_ps(v, v, _MM_SHUFFLE(d, c, b, a)); }

RTI_INLINE Quad quad(const float* wxyz) noexcept { return {_mm_loadu_ps(wxyz)}; }
RTI_INLINE Quad quad(const Quat& q) noexcept { return quad(&q.w); }
RTI_INLINE void store(Quad q, float* wxyz) noexcept { _mm_storeu_ps(wxyz, q.v); }

RTI_INLINE Triple triple(const Vec3& p) noexcept {
    return {_mm_movelh_ps(_mm_unpacklo_ps(_mm_load_ss(&p.x), _mm_load_ss(&p.y)), _mm_load_ss(&p.z))};
}
RTI_INLINE Triple triple(const float* row) noexcept { return {_mm_loadu_ps(row)}; }
RTI_INLINE void store(Triple p, float* row) noexcept { _mm_storeu_ps(row, p.v); }
RTI_INLINE Triple triple(const Place& p) noexcept { return triple(&p.x); }
RTI_INLINE void store(Triple p, Place& out) noexcept { store(p, &out.x); }

RTI_INLINE Triple operator+(Triple a, Triple b) noexcept { return {_mm_add_ps(a.v, b.v)}; }
RTI_INLINE Triple operator-(Triple a, Triple b) noexcept { return {_mm_sub_ps(a.v, b.v)}; }

RTI_INLINE Triple cross(Triple a, Triple b) noexcept {
    const __m128 c = _mm_sub_ps(_mm_mul_ps(a.v, lanes_of<1, 2, 0, 3>(b.v)), _mm_mul_ps(lanes_of<1, 2, 0, 3>(a.v), b.v));
    return {lanes_of<1, 2, 0, 3>(c)};
}

RTI_INLINE Triple rotate(Quad q, Triple v) noexcept {
    const Triple u{lanes_of<1, 2, 3, 0>(q.v)}, c = cross(u, v), t = c + c;
    return v + Triple{_mm_mul_ps(t.v, lanes_of<0, 0, 0, 0>(q.v))} + cross(u, t);
}

RTI_INLINE Quad conj(Quad q) noexcept { return {_mm_xor_ps(q.v, _mm_setr_ps(0.0f, -0.0f, -0.0f, -0.0f))}; }

RTI_INLINE Quad mul(Quad a, Quad b) noexcept {
    const __m128 w = _mm_mul_ps(lanes_of<0, 0, 0, 0>(a.v), b.v);
    const __m128 x = _mm_mul_ps(lanes_of<1, 1, 1, 1>(a.v), lanes_of<1, 0, 3, 2>(b.v));
    const __m128 y = _mm_mul_ps(lanes_of<2, 2, 2, 2>(a.v), lanes_of<2, 3, 0, 1>(b.v));
    const __m128 z = _mm_mul_ps(lanes_of<3, 3, 3, 3>(a.v), lanes_of<3, 2, 1, 0>(b.v));
    const __m128 wx = _mm_add_ps(w, _mm_xor_ps(x, _mm_setr_ps(-0.0f, 0.0f, -0.0f, 0.0f)));
    const __m128 yz = _mm_add_ps(_mm_xor_ps(y, _mm_setr_ps(-0.0f, 0.0f, 0.0f, -0.0f)),
                                 _mm_xor_ps(z, _mm_setr_ps(-0.0f, -0.0f, 0.0f, 0.0f)));
    return {_mm_add_ps(wx, yz)};
}

RTI_INLINE Quad tidy(Quad q) noexcept {
    const __m128 n = _mm_mul_ps(q.v, q.v), pairs = _mm_add_ps(n, lanes_of<1, 0, 3, 2>(n));
    const __m128 n2 = _mm_add_ps(pairs, lanes_of<2, 3, 0, 1>(pairs));
    return {_mm_mul_ps(q.v, _mm_sub_ps(_mm_set1_ps(1.5f), _mm_mul_ps(_mm_set1_ps(0.5f), n2)))};
}

RTI_INLINE Four all(float x) noexcept { return {_mm_set1_ps(x)}; }
RTI_INLINE Four four(const float* of) noexcept { return {_mm_loadu_ps(of)}; }
RTI_INLINE Four operator+(Four a, Four b) noexcept { return {_mm_add_ps(a.v, b.v)}; }
RTI_INLINE Four operator-(Four a, Four b) noexcept { return {_mm_sub_ps(a.v, b.v)}; }
RTI_INLINE Four operator*(Four a, Four b) noexcept { return {_mm_mul_ps(a.v, b.v)}; }
RTI_INLINE Four operator/(Four a, Four b) noexcept { return {_mm_div_ps(a.v, b.v)}; }
RTI_INLINE Four root(Four a) noexcept { return {_mm_sqrt_ps(a.v)}; }
RTI_INLINE Four smaller(Four a, Four b) noexcept { return {_mm_min_ps(a.v, b.v)}; }
RTI_INLINE Four larger(Four a, Four b) noexcept { return {_mm_max_ps(a.v, b.v)}; }
// `a` where x is more than y, else `b`.
RTI_INLINE Four where_more(Four x, Four y, Four a, Four b) noexcept {
#  if defined(__GNUC__)
    // One instruction where the processor has it.
    return {x.v > y.v ? a.v : b.v};
#  else
    const __m128 more = _mm_cmpgt_ps(x.v, y.v);
    return {_mm_or_ps(_mm_and_ps(more, a.v), _mm_andnot_ps(more, b.v))};
#  endif
}
// Between rows, each of one thing, and the numbers of all. The last row is written first: rows may lie at one place.
RTI_INLINE void columns(const float* const (&rows)[4], Four& a, Four& b, Four& c, Four& d) noexcept {
    a.v = _mm_loadu_ps(rows[0]), b.v = _mm_loadu_ps(rows[1]), c.v = _mm_loadu_ps(rows[2]), d.v = _mm_loadu_ps(rows[3]);
    _MM_TRANSPOSE4_PS(a.v, b.v, c.v, d.v);
}
RTI_INLINE void rows(Four a, Four b, Four c, Four d, float* const (&out)[4]) noexcept {
    _MM_TRANSPOSE4_PS(a.v, b.v, c.v, d.v);
    _mm_storeu_ps(out[3], d.v), _mm_storeu_ps(out[2], c.v), _mm_storeu_ps(out[1], b.v), _mm_storeu_ps(out[0], a.v);
}

#else

struct Four {
    float v[4];
};

template <class Of>
inline Four each(Of of) noexcept { return {{of(0), of(1), of(2), of(3)}}; }
inline Four all(float x) noexcept { return {{x, x, x, x}}; }
inline Four four(const float* of) noexcept { return each([&](int k) { return of[k]; }); }
inline Four operator+(Four a, Four b) noexcept { return each([&](int k) { return a.v[k] + b.v[k]; }); }
inline Four operator-(Four a, Four b) noexcept { return each([&](int k) { return a.v[k] - b.v[k]; }); }
inline Four operator*(Four a, Four b) noexcept { return each([&](int k) { return a.v[k] * b.v[k]; }); }
inline Four operator/(Four a, Four b) noexcept { return each([&](int k) { return a.v[k] / b.v[k]; }); }
inline Four root(Four a) noexcept { return each([&](int k) { return std::sqrt(a.v[k]); }); }
inline Four smaller(Four a, Four b) noexcept { return each([&](int k) { return a.v[k] < b.v[k] ? a.v[k] : b.v[k]; }); }
inline Four larger(Four a, Four b) noexcept { return each([&](int k) { return a.v[k] > b.v[k] ? a.v[k] : b.v[k]; }); }
inline Four where_more(Four x, Four y, Four a, Four b) noexcept {
    return each([&](int k) { return x.v[k] > y.v[k] ? a.v[k] : b.v[k]; });
}
inline void columns(const float* const (&rows)[4], Four& a, Four& b, Four& c, Four& d) noexcept {
    for (int k = 0; k < 4; ++k) a.v[k] = rows[k][0], b.v[k] = rows[k][1], c.v[k] = rows[k][2], d.v[k] = rows[k][3];
}
inline void rows(Four a, Four b, Four c, Four d, float* const (&out)[4]) noexcept {
    for (int k = 3; k >= 0; --k) out[k][0] = a.v[k], out[k][1] = b.v[k], out[k][2] = c.v[k], out[k][3] = d.v[k];
}

using Quad = Quat;
using Triple = Vec3;

inline Quad quad(const float* wxyz) noexcept { return {wxyz[0], wxyz[1], wxyz[2], wxyz[3]}; }
inline Quad quad(const Quat& q) noexcept { return q; }
inline void store(Quad q, float* wxyz) noexcept { std::memcpy(wxyz, &q, sizeof q); }
inline Triple triple(const Vec3& p) noexcept { return p; }
inline Triple triple(const float* row) noexcept { return {row[0], row[1], row[2]}; }
inline void store(Triple p, Place& out) noexcept { out = p; }
inline void store(Triple p, float* row) noexcept { std::memcpy(row, &p, sizeof p); }

#endif

RTI_INLINE void store(Quad q, Quat& out) noexcept { store(q, &out.w); }

// Vectors of four things.
struct Four3 {
    Four x, y, z;
};

RTI_INLINE Four3 all(Vec3 v) noexcept { return {all(v.x), all(v.y), all(v.z)}; }
RTI_INLINE Four3 operator+(Four3 a, Four3 b) noexcept { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
RTI_INLINE Four3 operator-(Four3 a, Four3 b) noexcept { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
RTI_INLINE Four3 operator*(Four3 a, Four s) noexcept { return {a.x * s, a.y * s, a.z * s}; }
RTI_INLINE Four dot(Four3 a, Four3 b) noexcept { return a.x * b.x + a.y * b.y + a.z * b.z; }
RTI_INLINE Four3 cross(Four3 a, Four3 b) noexcept {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
RTI_INLINE Four3 where_more(Four x, Four y, Four3 a, Four3 b) noexcept {
    return {where_more(x, y, a.x, b.x), where_more(x, y, a.y, b.y), where_more(x, y, a.z, b.z)};
}

RTI_INLINE void rows(Four a, Four b, Four c, Four d, float (&out)[4][4]) noexcept {
    rows(a, b, c, d, {out[0], out[1], out[2], out[3]});
}

RTI_INLINE float sum(Four a) noexcept {
    float of[4];
    std::memcpy(of, &a, sizeof of);
    return (of[0] + of[1]) + (of[2] + of[3]);
}

}  // namespace rti
