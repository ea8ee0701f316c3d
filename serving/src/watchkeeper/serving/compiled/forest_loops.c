/* The loops of the compiled forest, see forest.py. build_loops.py compiles them. */

#include <stddef.h>
#include <stdint.h>

enum { LANES = 64 }; /* pairs of a tree and a row that go down together */
enum { FEW = 8 };    /* rows; with more of them, the rows of one tree are enough lanes */

typedef struct {
    const uint32_t *left;      /* (nodes,): the left child; a leaf has itself */
    const uint32_t *feature;   /* (nodes,): the column that a node compares */
    const double *threshold;   /* (nodes,): what it compares with; infinite for a leaf */
    const double *weight;      /* (nodes, members): zero if the node is not a leaf */
    const uint32_t *roots;     /* (groups,): the root of each group of trees, as a node */
    const uint32_t *targets;   /* (groups, members): the output that each tree of a group adds to */
    size_t groups, members;
} Forest;

static inline uint32_t child(const Forest *forest, uint32_t node, const double *row) {
    return forest->left[node] + (row[forest->feature[node]] > forest->threshold[node]);
}

static inline void add_leaves(const Forest *forest, size_t group, const uint32_t *leaves,
                              size_t count, double *sums, size_t rows) {
    for (size_t member = 0; member < forest->members; member++) {
        double *sum = sums + forest->targets[group * forest->members + member] * rows;
        for (size_t row = 0; row < count; row++) {
            sum[row] += forest->weight[leaves[row] * forest->members + member];
        }
    }
}

/* Few rows: they go down several trees at once, or the processor would wait for one node after the other. */
static void add_few(const Forest *forest, const double *features, size_t rows, size_t columns,
                    double *sums) {
    uint32_t nodes[LANES];
    const double *row_of[LANES];
    for (size_t lane = 0; lane < LANES; lane++) {
        row_of[lane] = features + lane % rows * columns;
    }
    const size_t most = LANES / rows;
    for (size_t first = 0; first < forest->groups; first += most) {
        const size_t trees = forest->groups - first < most ? forest->groups - first : most;
        const size_t lanes = trees * rows;
        uint64_t before, reached = 0;
        for (size_t lane = 0; lane < lanes; lane++) {
            nodes[lane] = forest->roots[first + lane / rows];
            reached += nodes[lane];
        }
        do { /* until no lane moves: a child has a larger number than its parent */
            before = reached;
            reached = 0;
            for (size_t lane = 0; lane < lanes; lane++) {
                nodes[lane] = child(forest, nodes[lane], row_of[lane]);
                reached += nodes[lane];
            }
        } while (reached != before);
        for (size_t tree = 0; tree < trees; tree++) {
            add_leaves(forest, first + tree, nodes + tree * rows, rows, sums, rows);
        }
    }
}

/* Many rows: a block of them goes down one tree, whose nodes stay in the processor's cache. */
static void add_many(const Forest *forest, const double *features, size_t rows, size_t columns,
                     double *sums) {
    uint32_t nodes[LANES];
    for (size_t group = 0; group < forest->groups; group++) {
        for (size_t first = 0; first < rows; first += LANES) {
            const size_t count = rows - first < LANES ? rows - first : LANES;
            const double *block = features + first * columns;
            uint64_t before, reached = (uint64_t)count * forest->roots[group];
            for (size_t row = 0; row < count; row++) {
                nodes[row] = forest->roots[group];
            }
            do {
                before = reached;
                reached = 0;
                for (size_t row = 0; row < count; row++) {
                    nodes[row] = child(forest, nodes[row], block + row * columns);
                    reached += nodes[row];
                }
            } while (reached != before);
            add_leaves(forest, group, nodes, count, sums + first, rows);
        }
    }
}

/* Add the leaf of every tree to the sums.
 *
 * features: (rows, columns), without missing values
 * sums: (outputs, rows) */
void add_trees(const Forest *forest, const double *features, size_t rows, size_t columns,
               double *sums) {
    if (rows <= FEW) {
        add_few(forest, features, rows, columns, sums);
    } else {
        add_many(forest, features, rows, columns, sums);
    }
}
