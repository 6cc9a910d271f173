#!/bin/bash
#SBATCH --job-name=duckling
#SBATCH --cpus-per-task=2
#SBATCH --mem=2G
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
#
# The pipeline as Slurm jobs. Stages that go through all stories are arrays, with a task for each shard:
#
#     bash scripts/slurm/pipeline.sh            submits every job, each to run after the one before it has succeeded
#     duckling-data status                      shows how many shards are made
#
# If a job fails, correct the cause and submit again: what is made is not made again. Run it with Duckling's virtual
# environment active; change the values below, or set environment variables of these names.
set -euo pipefail

export DUCKLING_WORKSPACE=${DUCKLING_WORKSPACE:-/shared/duckling} # every node sees it under this path
export SOURCE=${SOURCE:-/shared/corpus}                           # likewise: a file or folder of stories
export SHARDS=${SHARDS:-7}                                        # a task takes about 1 s beside its shard
export COUNT_OPTIONS=${COUNT_OPTIONS:---sample all}
export VOCAB_OPTIONS=${VOCAB_OPTIONS:---live 6144 --dead 2048}
export PACK_OPTIONS=${PACK_OPTIONS:---ctx 512}

submit() { # STEP [SBATCH-OPTION...]: after the job $last, if there is one
    last=$(sbatch --parsable --job-name="duckling-$1" ${last:+--dependency="afterok:$last" --kill-on-invalid-dep=yes} \
        "${@:2}" "$0" "$1")
    last=${last%%;*} # the job's number; the cluster's name may follow
    echo "$1: job $last"
}

duckling() { # in place of this shell, so that it gets Slurm's signals
    exec duckling-data "$@" --workers "${SLURM_CPUS_PER_TASK:-1}"
}

# shellcheck disable=SC2086  # the options are several words
case ${1:-submit} in
    submit)
        tasks=--array=0-$((SHARDS - 1))
        submit download
        submit count "$tasks"
        submit merge-count
        submit build-vocab
        submit pack "$tasks"
        submit merge-pack
        ;;
    download) duckling download --source "$SOURCE" ;;
    count) duckling count --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" $COUNT_OPTIONS ;;
    merge-count) duckling merge count --shards "$SHARDS" $COUNT_OPTIONS ;;
    build-vocab) duckling build-vocab $COUNT_OPTIONS $VOCAB_OPTIONS ;;
    pack) duckling pack --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" $PACK_OPTIONS ;;
    merge-pack) duckling merge pack --shards "$SHARDS" $PACK_OPTIONS ;;
    *) echo "$0: no step $1" >&2 && exit 2 ;;
esac
