#!/usr/bin/env bash
# What the cluster needs of an Azure subscription: a resource group, storage, and a network that lets
# one address in. azure-account.sh ACCOUNT MY_ADDRESS   (ACCOUNT: a name for the storage account, 3 to
# 24 lowercase letters and digits, unique in Azure; MY_ADDRESS: as curl -s https://ifconfig.me says)
set -euo pipefail
account=${1:?ACCOUNT} address=${2:?MY_ADDRESS}
group=weakteach location=eastus

az group create --name $group --location $location
az storage account create --name "$account" --resource-group $group --location $location \
  --sku Standard_LRS --kind StorageV2 --min-tls-version TLS1_2 --allow-blob-public-access false \
  --enable-hierarchical-namespace true
az storage container create --name weakteach --account-name "$account" --auth-mode login

# Ray makes a network of this name with port 22 open to all, but keeps the subnet of one that is
# there, with its security group. What that one denies, none of Ray's own can let in.
az network nsg create --name weakteach-closed --resource-group $group --location $location
az network nsg rule create --name ssh --nsg-name weakteach-closed --resource-group $group \
  --priority 1000 --protocol Tcp --access Allow --direction Inbound \
  --source-address-prefixes "$address/32" --destination-port-ranges 22
az network vnet create --name ray-weakteach-wt01-vnet --resource-group $group --location $location \
  --address-prefixes 10.42.0.0/16 --subnet-name ray-weakteach-wt01-subnet \
  --subnet-prefixes 10.42.0.0/16 --network-security-group weakteach-closed

# The identity of all nodes: Ray makes it contributor of the group, this lets it use the storage.
az identity create --name weakteach-nodes --resource-group $group --location $location
az role assignment create --role "Storage Blob Data Contributor" \
  --assignee-object-id "$(az identity show --name weakteach-nodes --resource-group $group \
    --query principalId --output tsv)" --assignee-principal-type ServicePrincipal \
  --scope "$(az storage account show --name "$account" --resource-group $group --query id --output tsv)"

echo "Give --storage abfs://weakteach@$account.dfs.core.windows.net/weakteach"
