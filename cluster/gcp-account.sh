#!/usr/bin/env bash
# What the cluster needs of a Google Cloud project: a bucket, what workers may do, and who reaches
# them. gcp-account.sh PROJECT MY_ADDRESS   (an IPv4 address, such as curl -s https://ifconfig.me says)
set -euo pipefail
project=${1:?PROJECT} address=${2:?MY_ADDRESS}
region=us-central1
bucket=gs://$project-weakteach
worker=weakteach-worker@$project.iam.gserviceaccount.com

gcloud services enable --project "$project" \
  compute.googleapis.com iam.googleapis.com cloudresourcemanager.googleapis.com

gcloud storage buckets create "$bucket" --project "$project" --location "$region" \
  --uniform-bucket-level-access --public-access-prevention
gcloud iam service-accounts create weakteach-worker --project "$project"
gcloud storage buckets add-iam-policy-binding "$bucket" \
  --member "serviceAccount:$worker" --role roles/storage.objectUser

# A network of its own: the default one lets the whole world knock at port 22.
gcloud compute networks create weakteach --project "$project" --subnet-mode custom
gcloud compute networks subnets create weakteach --project "$project" --network weakteach \
  --region "$region" --range 10.42.0.0/16
gcloud compute firewall-rules create weakteach-ssh --project "$project" --network weakteach \
  --allow tcp:22 --source-ranges "$address/32"
gcloud compute firewall-rules create weakteach-nodes --project "$project" --network weakteach \
  --allow all --source-ranges 10.42.0.0/16

echo "Write $project for PROJECT in cluster/gcp.yaml. Give --storage $bucket/weakteach"
