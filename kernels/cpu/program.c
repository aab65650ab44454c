/* Run a recorded list of kernel calls for a number of rows: the forward pass of a decode step without
 * Python between its operations. What a CUDA graph is to a GPU; see program.py. */
#include "kernels.h"

enum { LINEAR, ADAPTED_LINEAR, STORE_KV, DECODE, RMS_NORM, SILU_MUL, ROPE, ADD };

typedef struct {
  int64_t op;
  int64_t rows_each; /* the call's rows for each row of the step (heads that are normed, say) */
  int64_t a[20];     /* arguments as in kernels.h; doubles by their bits */
} Call;

#define PTR(i) ((void *)c->a[i])

static double real(int64_t bits) {
  union { int64_t i; double d; } both = {bits};
  return both.d;
}

/* Returns 0, or 1 when memory is short. */
int lpx_run(const Call *calls, int64_t count, int64_t rows) {
  int failed = 0;
  for (const Call *c = calls; c < calls + count; c++) {
    int64_t n = rows * c->rows_each;
    switch (c->op) {
      case LINEAR:
        lpx_linear(PTR(0), PTR(1), PTR(2), PTR(3), n, c->a[5], c->a[6], c->a[7]);
        break;
      case ADAPTED_LINEAR:
        lpx_adapted_linear(PTR(0), PTR(1), PTR(2), PTR(3), n, c->a[5], c->a[6], c->a[7], c->a[8],
                           PTR(9), c->a[10], PTR(11));
        break;
      case STORE_KV:
        lpx_store_kv(PTR(0), PTR(1), PTR(2), PTR(3), PTR(4), n, c->a[6], c->a[7], c->a[8], c->a[9],
                     c->a[10]);
        break;
      case DECODE:
        failed |= lpx_decode(PTR(0), PTR(1), PTR(2), PTR(3), PTR(4), PTR(5), n, c->a[7], c->a[8],
                             c->a[9], c->a[10], c->a[11], c->a[12], c->a[13], real(c->a[14]),
                             real(c->a[15]), c->a[16], PTR(17), c->a[18]);
        break;
      case RMS_NORM:
        lpx_rms_norm(PTR(0), PTR(1), PTR(2), n, c->a[4], real(c->a[5]));
        break;
      case SILU_MUL:
        lpx_silu_mul(PTR(0), PTR(1), n, c->a[3]);
        break;
      case ROPE:
        lpx_rope(PTR(0), PTR(1), PTR(2), n, c->a[4], c->a[5], c->a[6]);
        break;
      case ADD:
        lpx_add(PTR(0), PTR(1), PTR(2), n, c->a[4]);
        break;
    }
  }
  return failed;
}
