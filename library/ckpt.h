/* Checkpoints that a program makes of itself: libckpt.
 *
 *     uint64_t id;
 *     switch (ckpt_checkpoint("job.ckpt", NULL, &id)) {
 *     case CKPT_SAVED:    puts("saved; ./job.ckpt goes on from here"); break;
 *     case CKPT_RESTORED: puts("restored"); break;
 *     default:            fprintf(stderr, "not saved: %s\n", ckpt_error());
 *     }
 *
 * All functions may be called by any thread.
 */
#ifndef CKPT_H
#define CKPT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What ckpt_checkpoint() returns. */
#define CKPT_SAVED 0     /* in the program that called: the image is complete */
#define CKPT_RESTORED 1  /* in every run of the image */
#define CKPT_FAILED (-1) /* not saved: see ckpt_error() */
#define CKPT_REFUSED (-2) /* not saved: state that cannot be; ckpt_error() has a line for each obstacle */

/* Saves the calling program, with all below it, as the executable file `path`, replacing what has that name; with
 * NULL in memory, for ckpt_revert(). Returns more than once, as fork(2) does. `options` is NULL, or a list, which
 * ends with NULL, of options of ckpt-dump(1) that say how ("--compress", "--allow", "children"). `id` (or NULL)
 * becomes the number of the checkpoint, when it is saved and when it is restored. */
int ckpt_checkpoint(const char *path, const char *const *options, uint64_t *id);

/* Returns to a checkpoint of this process: the program is replaced by what it was, in the same process, and
 * ckpt_checkpoint() returns CKPT_RESTORED there. All checkpoints in memory stay. It cannot be done while the
 * process has children, nor for a checkpoint that has children in it. Returns CKPT_FAILED, or not at all. */
int ckpt_revert(uint64_t id);

/* Forgets a checkpoint: what was in memory is freed, a file stays. Returns 0, or CKPT_FAILED if there is none. */
int ckpt_forget(uint64_t id);

/* Writes the numbers of checkpoints that can be returned to, oldest first, at most `room`; returns how many
 * there are. */
size_t ckpt_list(uint64_t *ids, size_t room);

/* Hooks, called in the thread that calls ckpt_checkpoint(): before each checkpoint (the last added first); after
 * it, in the program that goes on (`id` is 0 if it failed); in each restored run. They stay for good. */
void ckpt_before(void (*hook)(void *data), void *data);
void ckpt_after(void (*hook)(uint64_t id, void *data), void *data);
void ckpt_on_restored(void (*hook)(uint64_t id, void *data), void *data);

/* Why the calling thread's last call failed; valid until its next one. */
const char *ckpt_error(void);

#ifdef __cplusplus
}
#endif

#endif
